"""`fastreg data prepare --shard I/N`: shards together write the file of one process; an unfinished one is refused."""

from __future__ import annotations

import shutil

import pytest

from fastreg.errors import InputError, RunError
from fastreg.pipelines import open_dataset, verify, write_beton
from fastreg.pipelines.beton_write import BetonWriter


@pytest.fixture(scope="module")
def folder(data):
    return data / "imagenet"


GIVEN = {"jpeg_prob": 0.5, "max_res": 60}


def test_shards_in_any_order_write_the_file_of_one_process(folder, tmp_path):
    whole, to = tmp_path / "whole" / "val.beton", tmp_path / "shards" / "val.beton"
    one = write_beton("imagenet", folder, whole, **GIVEN)
    made = [write_beton("imagenet", folder, to, **GIVEN, shard=f"{number}/3") for number in (3, 1)]
    assert [row["images"] for row in made] == [40, 40]
    for place in (to, to.parent):
        with pytest.raises(InputError, match=r"val\.beton is not finished: run shard 2/3 of the same"):
            open_dataset("imagenet", "val", place)
    assert write_beton("imagenet", folder, to, **GIVEN, shard="1/3") == made[1]  # once more: harmless
    write_beton("imagenet", folder, to, **GIVEN, shard="2/3")
    assert to.read_bytes() == whole.read_bytes()
    assert [path.name for path in to.parent.iterdir()] == ["val.beton"]
    again = write_beton("imagenet", folder, to, **GIVEN, shard="2/3")
    assert again == {**one, "path": str(to)}
    assert [path.name for path in to.parent.iterdir()] == ["val.beton"]
    assert not verify("imagenet", to)["broken"]


def test_broken_images_left_out_by_a_shard(folder, tmp_path):
    source = tmp_path / "val"
    shutil.copytree(folder / "val", source)
    sorted(source.rglob("*.JPEG"))[70].write_bytes(b"broken")
    given = {**GIVEN, "split": "val"}
    write_beton("imagenet", source, tmp_path / "whole.beton", **given, on_bad_image="skip")
    with pytest.raises(RunError, match="cannot decode"):
        write_beton("imagenet", source, tmp_path / "c.beton", **given, shard="2/2")
    made = [
        write_beton("imagenet", source, tmp_path / "c.beton", **given, shard=f"{number}/2", on_bad_image="skip")
        for number in (1, 2)
    ]
    assert [row["skipped"] for row in made] == [0, 1]
    assert (tmp_path / "c.beton").read_bytes() == (tmp_path / "whole.beton").read_bytes()


def test_a_join_that_was_stopped_continues(folder, tmp_path, monkeypatch):
    to, honest, seen = tmp_path / "val.beton", BetonWriter.add, []
    write_beton("imagenet", folder, tmp_path / "whole" / "val.beton", **GIVEN)
    write_beton("imagenet", folder, to, **GIVEN, shard="1/2")

    def stop(writer, *sample):
        if writer.path == to:
            seen.append(1)
            if len(seen) == 90:
                writer.flush()
                raise KeyboardInterrupt
        honest(writer, *sample)

    monkeypatch.setattr(BetonWriter, "add", stop)
    with pytest.raises(KeyboardInterrupt):
        write_beton("imagenet", folder, to, **GIVEN, shard="2/2")
    assert not to.exists()
    write_beton("imagenet", folder, to, **GIVEN, shard="1/2")
    assert len(seen) == 90 + 120 - 89
    assert to.read_bytes() == (tmp_path / "whole" / "val.beton").read_bytes()


def test_a_stopped_run_without_shards_is_named_before_any_work(folder, tmp_path, monkeypatch):
    to, honest = tmp_path / "val.beton", BetonWriter.add

    def stop(writer, number, *sample):
        if number == 5:
            writer.flush()
            raise KeyboardInterrupt
        honest(writer, number, *sample)

    with monkeypatch.context() as patch:
        patch.setattr(BetonWriter, "add", stop)
        with pytest.raises(KeyboardInterrupt):
            write_beton("imagenet", folder, to, **GIVEN)
    with pytest.raises(InputError, match=r"val\.beton\.part is of an unfinished run without `shard`: remove it"):
        write_beton("imagenet", folder, to, **GIVEN, shard="1/2")
    assert not list(tmp_path.glob("*-of-*"))


def test_refused_shards(folder, tmp_path):
    to = tmp_path / "val.beton"
    with pytest.raises(InputError, match="`shard` is 4/3: give I/N with I from 1 to N"):
        write_beton("imagenet", folder, to, shard="4/3")
    with pytest.raises(InputError, match="`shard` is 1/121, but there are 120 images: give a smaller N"):
        write_beton("imagenet", folder, to, shard="1/121")
    write_beton("imagenet", folder, to, shard="1/2", **GIVEN)
    with pytest.raises(InputError, match=r"val\.1-of-2\.beton exists and was made from other data"):
        write_beton("imagenet", folder, to, shard="1/2", jpeg_prob=0, max_res=60)
    with pytest.raises(InputError, match=r"val\.1-of-2\.beton was made from other data or with other settings: remove"):
        write_beton("imagenet", folder, to, shard="2/2", jpeg_prob=0, max_res=60)
    assert not to.exists()
