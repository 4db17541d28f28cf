"""One set as class folders, a .beton file, tar shards and parquet files: the same samples, labels and boxes."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest
import torch

from fastreg.errors import InputError
from fastreg.pipelines import info, make_loader, open_dataset, shard_index, verify, write_beton
from tests.pipelines.shard_files import label_json, label_text, write_parquet, write_shards

STORAGES = ("beton", "tar", "parquet")


@pytest.fixture(scope="module")
def storages(data, tmp_path_factory):
    """The validation split of the sample in every storage, each openable from its folder."""
    root = tmp_path_factory.mktemp("storages")
    folder = open_dataset("imagenet", "val", data / "imagenet")
    write_beton("imagenet", data / "imagenet", root / "beton" / "val.beton", max_res=None, jpeg_prob=1, quality=None)
    write_shards(folder, root / "tar")
    (root / "tar" / "classes.txt").write_text("\n".join(folder.classes) + "\n")
    write_parquet(folder, root / "parquet")
    return folder, {name: open_dataset("imagenet", "val", root / name) for name in STORAGES}


@pytest.mark.parametrize("storage", STORAGES)
def test_every_storage_gives_the_same_bytes_labels_and_classes(storages, storage):
    folder, sources = storages
    source = sources[storage]
    assert source.labels.tolist() == folder.labels.tolist()
    assert source.classes == folder.classes
    assert all(source.read(k) == folder.read(k) for k in range(len(folder)))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("world", [1, 4])
def test_every_storage_gives_the_same_batches_on_every_rank_and_after_a_resume(storages, storage, train, world):
    folder, sources = storages
    for rank in range(world):
        kw = {"train": train, "batch_size": 24 // world, "size": 32, "seed": 6, "rank": rank, "world": world}
        with make_loader(folder, **kw) as a, make_loader(sources[storage], **kw) as b:
            for position in (0, 48):
                for x, y in zip(a.batches(position), b.batches(position), strict=True):
                    assert torch.equal(x.images, y.images)
                    assert torch.equal(x.labels, y.labels)
                    assert torch.equal(x.indices, y.indices)


@pytest.mark.parametrize("storage", ["tar", "parquet"])
@pytest.mark.parametrize("world", [1, 2])
def test_page_order_reads_each_shard_or_row_group_about_once(storages, storage, world, monkeypatch):
    source = storages[1][storage]
    monkeypatch.setattr(type(source), "window", 2)
    seen = []
    for rank in range(world):
        kw = {"train": True, "batch_size": 5, "size": 32, "page_order": True, "rank": rank, "world": world}
        with make_loader(source, **kw) as loader:
            mine = np.concatenate([indices for _, indices in loader.order.batches()])
            whole = list(loader.batches())
            rest = list(loader.batches(5 * world))
        pages = source.pages[mine]
        changes = 1 + np.count_nonzero(np.diff(pages))
        assert len(set(pages[:20].tolist())) <= 3
        assert changes > len(set(pages.tolist()))  # shuffled inside a window
        assert all(torch.equal(a.images, b.images) for a, b in zip(whole[1:], rest, strict=True))
        seen += mine.tolist()
    assert len(set(seen)) == len(seen) == 120 // (5 * world) * 5 * world


@pytest.mark.parametrize("label", [label_text, label_json])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_labels_are_text_or_json_in_every_tar_format(storages, tmp_path, label, form):
    folder, _ = storages
    write_shards(folder, tmp_path, label=label, format=form)
    source = open_dataset("folder", "val", tmp_path)
    assert source.labels.tolist() == folder.labels.tolist()
    assert source.classes == tuple(map(str, range(12)))
    assert source.read(77) == folder.read(77)
    assert source.describe(77).endswith("val-0001.tar:sample000077.jpg")


def test_long_names_folders_and_other_members_of_a_tar(storages, tmp_path):
    folder, _ = storages
    with tarfile.open(tmp_path / "val.tar", "w") as tar:
        from tests.pipelines.shard_files import add_member

        entry = tarfile.TarInfo("deep")
        entry.type = tarfile.DIRTYPE
        tar.addfile(entry)
        for k in range(3):
            stem = "deep/" + "long" * 60 + f"/v{k}" if k == 1 else f"deep/{k}"
            add_member(tar, f"{stem}.txt", b"a caption")
            add_member(tar, f"{stem}.seg.png", b"not the image")
            add_member(tar, f"{stem}.JPG", folder.read(k))
            add_member(tar, f"{stem}.class", b" n0%d \n" % k)
        add_member(tar, ".hidden.jpg", b"x")
        add_member(tar, "README", b"x")
    with pytest.raises(InputError, match=r"val\.tar: sample 'deep/0' has no label cls but txt, .*`label_key` names it"):
        open_dataset("folder", "val", tmp_path)
    source = open_dataset("folder", "val", tmp_path, label_key="class")
    assert source.classes == ("n00", "n01", "n02")
    assert source.labels.tolist() == [0, 1, 2]
    assert [source.read(k) for k in range(3)] == [folder.read(k) for k in range(3)]
    other = open_dataset("folder", "val", tmp_path, image_key="seg.png", label_key="class")
    assert other.read(1) == b"not the image"


def test_plain_parquet_columns_by_name(storages, tmp_path):
    folder, _ = storages
    write_parquet(folder, tmp_path, struct=False)
    source = open_dataset("folder", "val", tmp_path)
    assert source.labels.tolist() == folder.labels.tolist()
    assert source.read(100) == folder.read(100)
    with pytest.raises(InputError, match=r"val-00000-of-00002\.parquet: it has no column photo but image, label"):
        open_dataset("folder", "val", tmp_path, image_key="photo")
    with pytest.raises(InputError, match="column 'label' is int64, not encoded images"):
        open_dataset("folder", "val", tmp_path, image_key="label")
    with pytest.raises(InputError, match="column 'image' is binary, neither whole numbers nor names"):
        open_dataset("folder", "val", tmp_path, label_key="image")


@pytest.mark.parametrize("write", [write_shards, write_parquet])
def test_the_index_is_made_once_and_again_when_a_shard_changes(storages, tmp_path, monkeypatch, write):
    folder, _ = storages
    paths = write(folder, tmp_path / "a")
    made = []
    make = shard_index._make
    monkeypatch.setattr(shard_index, "_make", lambda *given: (made.append(1), make(*given))[1])
    first = open_dataset("folder", "val", tmp_path / "a")
    again = open_dataset("folder", "val", tmp_path / "a")
    assert len(made) == 1
    assert first.fingerprint == again.fingerprint
    (index,) = [path for path in (tmp_path / "a").iterdir() if path.name.startswith(".fastreg-index")]
    content = index.read_bytes()
    for damage in (content[:-1], content.replace(b'"samples": 120', b'"samples": 121'), b"", b"\x80junk"):
        index.write_bytes(damage)
        assert open_dataset("folder", "val", tmp_path / "a").fingerprint == first.fingerprint
    assert len(made) == 5
    rows = folder.labels.copy()
    rows[0] = 11
    monkeypatch.setattr(folder, "labels", rows)
    write(folder, tmp_path / "a")
    changed = open_dataset("folder", "val", tmp_path / "a")
    assert changed.labels[0] == 11
    assert changed.fingerprint != first.fingerprint
    assert paths[0].exists()


def test_an_index_that_cannot_be_written_beside_the_shards_goes_to_the_cache(storages, tmp_path, monkeypatch):
    folder, _ = storages
    write_shards(folder, tmp_path / "a")
    monkeypatch.setenv("FASTREG_CACHE", str(tmp_path / "cache"))

    def refuse(path, content, honest=shard_index.atomic_write):
        if path.parent == tmp_path / "a":
            from fastreg.errors import RunError

            raise RunError("read-only")
        honest(path, content)

    monkeypatch.setattr(shard_index, "atomic_write", refuse)
    source = open_dataset("folder", "val", tmp_path / "a")
    assert len(list((tmp_path / "cache" / "indexes").iterdir())) == 1
    monkeypatch.setattr(shard_index, "_make", None)
    assert open_dataset("folder", "val", tmp_path / "a").labels.tolist() == source.labels.tolist()


@pytest.mark.parametrize("storage", ["tar", "parquet"])
def test_verify_info_and_prepare_read_shards(storages, tmp_path, storage):
    folder, sources = storages
    root = sources[storage].root
    assert verify("imagenet", root) == {"checked": 120, "broken": []}
    assert info("imagenet", root)["splits"]["val"]["formats"] == {"JPEG": 120}
    made = write_beton("imagenet", root, tmp_path / "val.beton", max_res=None, jpeg_prob=1, quality=None)
    assert made["images"] == 120
    beton = open_dataset("imagenet", "val", tmp_path / "val.beton")
    assert all(beton.read(k) == folder.read(k) for k in range(0, 120, 7))
