"""Out-of-distribution sets: scores, the paper's mean, the mean of fewer sets, and the user's own folders."""

import numpy as np
import pytest
import torch
from PIL import Image

from fastreg import metrics
from fastreg.distributed import World
from fastreg.errors import InputError, RunError
from fastreg.evaluation import evaluate
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.ood import IMAGE_SETS, OOD_IMAGES, OOD_SETS
from tests.fastreg.evaluation.tiny_classifier import MEAN, STD, tiny_images, to_pixels


@pytest.fixture(scope="module")
def data():
    return tiny_images(20, size=32)


def write(folder, n=3, side=32, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(n).integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i:02}{suffix}")


def test_ood_scores_against_a_plain_version(net, tmp_path):
    images, labels = tiny_images(40, size=32)
    rng = np.random.default_rng(0)
    folder = tmp_path / "LSUN" / "test"
    folder.mkdir(parents=True)
    others = rng.integers(0, 256, (25, 36, 36, 3), dtype=np.uint8)  # with a border of two
    for i, image in enumerate(others):
        Image.fromarray(image).save(folder / f"{i:02}.png")
    card = evaluate(net, "ood", (images, labels), ood_dir=tmp_path, batch_size=512)
    rows = card.results("ood")
    assert list(rows) == ["lsun_crop", "gaussian", "uniform"]
    assert rows["gaussian"]["n"] == 40  # as many as the data has
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)

    def scores(pixels):
        with torch.no_grad():
            return net((pixels - mean) / std).softmax(1).amax(1)

    inside = scores(to_pixels(images))
    outside = scores(to_pixels(torch.from_numpy(others[:, 2:-2, 2:-2])))
    assert rows["lsun_crop"]["detection_error"] == pytest.approx(metrics.detection_error(inside, outside))
    assert rows["lsun_crop"]["auroc"] == pytest.approx(metrics.auroc(inside, outside))
    assert rows["lsun_crop"]["stored_px"] == 36
    assert "ood_error" not in card.summary()
    assert any("3 of the paper's 7 sets" in note and "lsun_resize" in note for note in card.notes())
    assert "ece" in card.summary()


def test_odins_split_needs_more_images_than_it_leaves_out(net, tmp_path):
    images, labels = torch.zeros(1001, 32, 32, 3, dtype=torch.uint8), torch.zeros(1001, dtype=torch.int64)
    with pytest.raises(InputError, match="`odin_split` leaves out the first 1,000 images, but the data has only 1,000"):
        evaluate(net, "ood", (images[:1000], labels[:1000]), odin_split=True)
    (tmp_path / "iSUN").mkdir()
    (tmp_path / "iSUN" / "0.png").touch()
    with pytest.raises(InputError, match=r"`odin_split` .*iSUN has only 1:"):
        evaluate(net, "ood", (images, labels), odin_split=True, ood_dir=tmp_path)


@pytest.mark.parametrize("left_out", [0, 1000])
def test_only_the_papers_seven_sets_have_a_mean(net, data, left_out):
    card = evaluate(net, "clean", data)
    errors = dict(zip(OOD_SETS, (10.0, 20.0, 30.0, 40.0, 5.0, 6.0, 8.0)))
    rows = {name: {"n": OOD_IMAGES[name] - left_out, "detection_error": error} for name, error in errors.items()}
    own = {"mine": {"n": 9, "detection_error": 50.0}}
    card.suites["ood"] = {"settings": {"first": left_out}, "wanted": [*rows, "mine"], "results": own}
    for name, row in rows.items():
        assert "ood_error" not in card.summary()
        card.results("ood")[name] = row
    assert card.summary()["ood_error"] == pytest.approx(17.0)
    assert "ood_mean" not in card.summary()
    assert not any("7 sets" in note for note in card.notes())
    assert not card.altered("ood")
    card.results("ood")["isun"]["n"] -= 1
    assert card.altered("ood") == "images: isun 8,924 of 8,925"


def test_the_noise_sets_have_their_distributions():
    from fastreg.evaluation.ood import _noise

    given = World(0, 1, torch.device("cpu")), EvalConfig(batch_size=200)
    gaussian = next(_noise("gaussian", range(200), 32, 0)(*given)).pixels
    uniform = next(_noise("uniform", range(200), 32, 0)(*given)).pixels
    # N(0.5, 1) clipped to [0, 1] piles up Phi(-0.5) of its mass at each end
    assert (gaussian == 0).float().mean() == pytest.approx(0.3085, abs=0.003)
    assert (gaussian == 1).float().mean() == pytest.approx(0.3085, abs=0.003)
    assert uniform.mean() == pytest.approx(0.5, abs=0.003)
    assert uniform.var() == pytest.approx(1 / 12, abs=0.001)


def counts(card):
    return {name: row["n"] for name, row in card.results("ood").items()}


def test_sets_of_other_sizes_than_the_papers_are_noted(net, data, tmp_path):
    for name in IMAGE_SETS:
        write(tmp_path / name)
    card = evaluate(net, "ood", data, ood_dir=tmp_path)
    summary, rows = card.summary(), card.results("ood")
    assert summary["ood_error"] == pytest.approx(sum(row["detection_error"] for row in rows.values()) / 7)
    note = next(note for note in card.notes() if note.startswith("ood: images: "))
    assert "isun 3 of 8,925" in note
    assert "uniform 20 of 10,000" in note


def test_further_folders_are_sets_of_their_own_outside_the_mean(net, data, tmp_path):
    write(tmp_path / "iSUN" / "iSUN_patches", 4)
    write(tmp_path / "svhn" / "test", 5)
    write(tmp_path / "Textures", 2, suffix=".bmp")
    write(tmp_path / "Textures", 3, suffix=".WebP")
    (tmp_path / "empty").mkdir()
    (tmp_path / "svhn" / "._0.png").write_bytes(b"not an image")
    card = evaluate(net, "ood", data, ood_dir=tmp_path)
    assert counts(card) == {"isun": 4, "Textures": 5, "svhn": 5, "gaussian": 20, "uniform": 20}
    rows = card.results("ood")
    mean = sum(rows[name]["detection_error"] for name in ("isun", "gaussian", "uniform")) / 3
    assert card.summary()["ood_mean"] == pytest.approx(mean)
    alone = evaluate(net, "ood", data, ood_dir=tmp_path / "svhn")
    assert alone.results("ood")["svhn"]["detection_error"] == rows["svhn"]["detection_error"]
    assert counts(alone) == {"svhn": 5, "gaussian": 20, "uniform": 20}


@pytest.mark.parametrize(
    ("folders", "root", "message"),
    [
        (("isun", "uniform"), "", "uniform has the name of one of the paper's sets"),
        (("gaussian",), "gaussian", "gaussian has the name of one of the paper's sets"),
        (("isun",), "isun", "isun has the name of one of the paper's sets"),
        (("LSUN", "lsun_crop"), "", "lsun_crop twice, as lsun_crop and LSUN"),
    ],
)
def test_a_name_that_is_taken_is_an_error(net, data, tmp_path, folders, root, message):
    for folder in folders:
        write(tmp_path / folder)
    with pytest.raises(InputError, match=message):
        evaluate(net, "ood", data, ood_dir=tmp_path / root)


def test_a_border_is_cut_off_and_noted_and_sizes_are_not_mixed(net, data, tmp_path):
    write(tmp_path / "isun", 3, side=36)
    card = evaluate(net, "ood", data, ood_dir=tmp_path)
    assert (
        "ood isun: of its images of 36 px the center 32 px were used; ODIN's own code takes the whole images."
        in card.notes()
    )
    write(tmp_path / "isun", 2, side=32)  # the first two are replaced
    with pytest.raises(InputError, match=r"02\.png is 36 x 36 px, the set's others 32"):
        evaluate(net, "ood", data, ood_dir=tmp_path)
    write(tmp_path / "isun", 1, side=64)
    with pytest.raises(InputError, match=r"00\.png is 64 x 64 px, not 32"):
        evaluate(net, "ood", data, ood_dir=tmp_path)


@pytest.mark.parametrize("content", [b"not an image", b"", "cut", "bomb"])
def test_a_file_that_cannot_be_read_is_named(net, data, tmp_path, monkeypatch, content):
    write(tmp_path / "isun", 3)
    file = tmp_path / "isun" / "01.png"
    if content == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # 32 x 32 is more than twice that
    else:
        file.write_bytes(file.read_bytes()[:200] if content == "cut" else content)
    with pytest.raises(RunError, match=r"cannot read .*isun/0[01]\.png \(.*: fetch that set again, or remove the file"):
        evaluate(net, "ood", data, ood_dir=tmp_path)


def test_gray_images_of_more_than_8_bits_are_scaled(net, data, tmp_path):
    gray = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    for name, images in (("isun", gray), ("lsun_resize", gray.astype(np.uint16) * 257)):
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / name / f"{i}.png")
    rows = evaluate(net, "ood", data, ood_dir=tmp_path).results("ood")
    assert rows["lsun_resize"]["histogram_out"] == rows["isun"]["histogram_out"]
    assert rows["lsun_resize"]["confidence"] == rows["isun"]["confidence"]
