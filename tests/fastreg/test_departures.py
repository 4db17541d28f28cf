"""The table of departures from the original code: every recipe's rows, and their place in the documents."""

from __future__ import annotations

import pytest

from fastreg import methods
from fastreg.departures import TABLE, departure_table, departures, numbers
from fastreg.faithful import SETTINGS
from fastreg.recipes import PAPER
from fastreg.training import make_config
from fastreg.training.config import to_dict
from fastreg.training.recipe_table import recipe_config, recipe_table
from tests.support import ROOT


def on_gpu(name, **more):
    config, _ = make_config(recipe_config(name).dataset, gpu=True, recipe=name, **more)
    return {**to_dict(config), "precision_used": "bf16", "loader_used": "dali", "device_used": "cuda"}


@pytest.mark.slow
def test_the_documents_have_every_row():
    text = (ROOT / "docs" / "departures.md").read_text()
    between = text.split("<!-- departures -->\n")[1].split("\n<!-- /departures -->")[0]
    assert between == departure_table(), "write it anew from fastreg.departures.departure_table"
    for row in TABLE:
        assert row.topic in recipe_table()
        assert row.effect in recipe_table()
    assert len({row.topic for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize("name", PAPER)
def test_faithful_leaves_only_what_cannot_be_restored(name):
    usual = departures(on_gpu(name))
    faithful = on_gpu(name, faithful=True) | {"precision_used": "fp32", "loader_used": "folder"}
    left = departures(faithful)
    assert len(left) < len(usual)
    if "ood_gan" not in name:  # its batch norm has the whole batch, for the GAN's sake
        assert not any(row.remedy for row in left)
    assert set(left) - set(usual) <= {row for row in TABLE if row.topic == "mixing partners"}


def test_every_row_applies_to_a_recipe_and_every_setting_removes_one():
    seen = {row.topic for name in PAPER for row in departures(on_gpu(name))}
    seen |= {row.topic for row in departures(on_gpu("paper/imagenet/ls") | {"precision_used": "fp32"})}
    beyond = on_gpu("paper/imagenet/baseline") | {"reg": "augmix", "aug_repeats": 3}
    assert not seen & {"AugMix", "translations", "repeats"}
    seen |= {row.topic for row in departures(beyond)}
    assert seen == {row.topic for row in TABLE}
    color = on_gpu("paper/imagenet/mixup") | {"precision_used": "fp32"}
    for field, value in SETTINGS.items():
        if field != "precision":
            assert len(departures(color | {field: value})) == len(departures(color)) - 1
    for method in ("shakedrop", "ood_svhn", "ood_gan"):
        parameters = {
            key.removeprefix(f"{method}_"): v for key, v in methods.create(method, dataset="cifar100").original.items()
        }
        settings = on_gpu(f"paper/cifar100/{method}")
        for prefix in ("", f"{method}_"):
            own = {f"{prefix}{key}": value for key, value in parameters.items()}
            assert len(departures(settings | {"reg_args": own})) == len(departures(settings)) - (
                1 + ("joint" in parameters)
            )


def test_numbers_of_rows():
    assert numbers([TABLE[0], TABLE[2], TABLE[3], TABLE[4], TABLE[8]]) == "1, 3-5, 9"
    assert numbers([TABLE[0], TABLE[1]]) == "1, 2"
    assert numbers([]) == ""
