"""Every decoder under one contract: same samples, labels and boxes in the same order; pixels compared with Pillow's."""

from __future__ import annotations

import gc
import io
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from fastreg import methods
from fastreg.errors import InputError, RunError
from fastreg.kernels import augment
from fastreg.pipelines import crop, make_loader, open_dataset
from fastreg.pipelines.decoder import BatchRequest, DecodePool
from fastreg.pipelines.staging import Staging

DECODERS = ("folder", "dali")


@pytest.fixture(scope="module")
def train(data):
    return open_dataset("imagenet", "train", data / "imagenet")


@pytest.fixture(scope="module")
def val(data):
    return open_dataset("imagenet", "val", data / "imagenet")


def pillow(source, index, size, epoch=None, seed=0):
    """torchvision's arithmetic, written with Pillow."""
    image = Image.open(io.BytesIO(source.read(index))).convert("RGB")
    if epoch is not None:
        ((top, left, h, w),) = crop.random_boxes(seed, [index], epoch, [image.height], [image.width]).tolist()
        image = image.crop((left, top, left + w, top + h)).resize((size, size), Image.BILINEAR)
        return np.asarray(image)
    short, long = sorted(image.size)
    to = round(size * 256 / 224), int(round(size * 256 / 224) * long / short)
    image = image.resize(to if image.width <= image.height else to[::-1], Image.BILINEAR)
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize("name", DECODERS)
def test_training_batches_are_the_resized_crops(train, name):
    with make_loader(train, loader=name, train=True, batch_size=16, size=64, seed=5) as loader:
        batch = next(loader.batches(loader.steps_per_epoch * loader.global_batch))  # epoch 1
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape == (16, 64, 64, 3)
    assert batch.images.is_contiguous()
    assert batch.crop is None
    assert batch.labels.dtype == batch.indices.dtype == torch.int64
    assert batch.labels.tolist() == train.labels[batch.indices.numpy()].tolist()
    expected = np.stack([pillow(train, int(i), 64, epoch=1, seed=5) for i in batch.indices])
    difference = np.abs(batch.images.numpy().astype(int) - expected)
    if name == "folder":  # torch's 8-bit resampling: Pillow's with 16-bit weights
        assert difference.max() <= 1
        assert difference.mean() < 0.03
    else:  # DALI repeats the border pixel where Pillow drops and reweights; inside, only the rounding differs
        assert difference[:, 1:-1, 1:-1].max() <= 1
        assert difference.max() <= 24
        assert difference.mean() < 0.3


def test_dali_cuts_whole_images_as_it_decodes_regions(train):
    """A GPU decodes whole images. Here both routes run on the CPU."""
    batches = []
    for regions in (True, False):
        with make_loader(train, loader="dali", train=True, batch_size=48, size=64, seed=1) as loader:
            loader._decoder.regions = regions
            batches.append(next(loader.batches()).images)
    assert torch.equal(*batches)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("size", [64, 224])
def test_evaluation_is_resize_256_and_center_crop_224(val, name, size):
    with make_loader(val, loader=name, train=False, batch_size=20, size=size) as loader:
        batches = list(loader.batches())
    assert torch.cat([b.indices for b in batches]).tolist() == list(range(len(val)))
    assert [len(b.labels) for b in batches] == [20] * 6
    for k in (0, 75, 119):
        image = batches[k // 20].images[k % 20].numpy().astype(int)
        assert np.abs(image - pillow(val, k, size)).max() <= (0 if name == "folder" else 1)


@pytest.mark.parametrize("name", DECODERS)
def test_resume_at_any_batch_gives_the_same_pixels(train, name):
    with make_loader(train, loader=name, train=True, batch_size=48, size=32, seed=1) as loader:
        whole = list(loader.batches())
        for done in (1, 6, 11):
            rest = list(loader.batches(done * 48))
            assert len(rest) == 12 - done
            for a, b in zip(rest, whole[done:]):
                assert torch.equal(a.indices, b.indices)
                assert torch.equal(a.images, b.images)


@pytest.mark.parametrize("name", DECODERS)
def test_two_ranks_together_see_what_one_sees(train, name):
    def indices_and_pixels(**kw):
        with make_loader(train, loader=name, train=True, size=32, seed=2, **kw) as loader:
            return next(loader.batches())

    one = indices_and_pixels(batch_size=16)
    two = [indices_and_pixels(batch_size=8, rank=r, world=2) for r in (0, 1)]
    assert torch.equal(one.indices, torch.cat([b.indices for b in two]))
    assert torch.equal(one.images, torch.cat([b.images for b in two]))


@pytest.mark.parametrize("name", DECODERS)
def test_the_number_of_workers_changes_nothing(train, name, monkeypatch):
    """The batches are equal, and so are a method's plans, since draws depend on the samples only."""
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2}, raising=False)
    method = methods.create("cutmix+gaussian_noise", scope="sample", seed=2, size=32)
    seen = []
    for workers in (1, 3):
        with make_loader(train, loader=name, train=True, batch_size=16, size=32, seed=2, workers=workers) as loader:
            batch = next(loader.batches())
        plan, targets = method.draw(batch.labels, batch.indices, 0, size=32)
        drawn = [batch.images, batch.indices, plan.box, plan.partner, plan.noise, plan.flip, *targets]
        settings = {"mean": (0.5,) * 3, "std": (0.2,) * 3, "dtype": torch.float32, "indices": batch.indices}
        seen.append([*drawn, augment(batch.images, plan, **settings)])
    assert all(torch.equal(one, three) for one, three in zip(*seen))


@pytest.mark.parametrize(("rows", "workers", "tasks"), [(32, 2, 2), (256, 2, 8), (32, 16, 8), (64, 16, 16), (8, 2, 2)])
def test_rows_are_shared_out_so_that_no_thread_of_many_is_idle(rows, workers, tasks):
    """Three batches are begun at once: 64 images are `data prepare`'s, 32 a CPU's batch."""
    pool = DecodePool(workers)
    futures = pool.map_chunks(BatchRequest(0, np.arange(rows), 8, 1.0), lambda request, a, b: range(a, b))
    assert [row for future in futures for row in future.result()] == list(range(rows))
    assert len(futures) == tasks
    assert 3 * len(futures) >= workers
    pool.close()


@pytest.mark.parametrize("name", DECODERS)
def test_the_size_changes_between_epochs_without_a_new_loader(train, name):
    with make_loader(train, loader=name, train=True, batch_size=8, size=32) as loader:
        for size in (32, 48, 32):
            loader.size = size
            assert next(loader.batches()).images.shape == (8, size, size, 3)


@pytest.mark.parametrize("name", DECODERS)
def test_leaving_early_leaks_no_thread(train, name):
    def leave():
        loader = make_loader(train, loader=name, train=True, batch_size=8, size=32)
        for _ in loader.batches():
            break
        loader.close()

    leave()
    gc.collect()
    before = threading.active_count()
    for _ in range(5):
        leave()
    gc.collect()
    assert threading.active_count() <= before


@pytest.mark.parametrize("split", ["train", "val"])
def test_cifar_is_resident_and_the_folder_decoder_agrees(data, split):
    source = open_dataset("cifar100", split, data / "cifar100")
    kw = {"train": split == "train", "batch_size": 64, "size": 32, "seed": 4}
    resident, folder = make_loader(source, **kw), make_loader(source, loader="folder", **kw)
    assert resident.name == "resident"
    assert resident.why
    for a, b in zip(resident.batches(), folder.batches(), strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.indices, b.indices)
        assert np.array_equal(a.images.numpy(), source.images[a.indices])
        if split == "train":
            assert torch.equal(a.crop, b.crop)
            assert a.crop.dtype == torch.float32
            assert a.crop[:, :2].abs().max() <= 4
            assert (a.crop[:, 2:] == 32).all()
        else:
            assert a.crop is None
            assert b.crop is None


def test_training_without_crops_shows_the_center_in_training_order(train):
    kw = {"train": True, "batch_size": 16, "size": 64, "seed": 5}
    batch = next(make_loader(train, random_crop=False, **kw).batches())
    assert torch.equal(batch.indices, next(make_loader(train, **kw).batches()).indices)
    assert np.array_equal(batch.images[3].numpy(), pillow(train, int(batch.indices[3]), 64))


def test_synthetic_hands_out_one_batch_with_true_labels(train):
    with make_loader(train, loader="synthetic", train=True, batch_size=16, size=64) as loader:
        first, second, *_ = list(loader.batches())
    assert first.images.shape == (16, 64, 64, 3)
    assert first.images.data_ptr() == second.images.data_ptr()
    assert second.labels.tolist() == train.labels[second.indices.numpy()].tolist()


def test_a_batch_in_use_is_never_written_again():
    staging = Staging(torch.device("cpu"))
    buffer = staging.buffer((2, 4, 4, 3))
    address, view = buffer.data_ptr(), buffer[1:]
    del buffer
    assert staging.buffer((2, 4, 4, 3)).data_ptr() != address  # `view` still refers to it
    del view
    assert staging.buffer((2, 4, 4, 3)).data_ptr() == address
    many = [staging.buffer((2, 4, 4, 3)) for _ in range(20)]
    assert len({tensor.data_ptr() for tensor in many}) == 20


def test_auto_gives_its_reason(train):
    loader = make_loader(train, train=True, batch_size=8, size=32)
    assert loader.name == "folder"
    assert "no GPU" in loader.why


def test_unusable_arguments(train, data):
    with pytest.raises(InputError, match="did you mean 'folder'"):
        make_loader(train, loader="foldr", train=True, batch_size=8, size=32)
    with pytest.raises(InputError, match="resident"):
        make_loader(train, loader="resident", train=True, batch_size=8, size=32)
    with pytest.raises(InputError, match="lower `batch_size`"):
        make_loader(train, train=True, batch_size=5000, size=32)
    with pytest.raises(InputError, match="`workers` is 0"):
        make_loader(train, train=True, batch_size=8, size=32, workers=0)
    cifar = open_dataset("cifar100", "val", data / "cifar100")
    with pytest.raises(InputError, match="arrays"):
        make_loader(cifar, loader="dali", train=False, batch_size=8, size=32)


def test_more_workers_than_cores_are_clamped_with_one_sentence(train, monkeypatch, caplog):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2}, raising=False)
    loader = make_loader(train, loader="folder", train=True, batch_size=8, size=32, workers=64)
    assert loader._decoder.pool.workers == 3
    (record,) = caplog.records
    assert record.getMessage() == "64 workers are more than the 3 cores this process may use: taking 3."


@pytest.fixture
def broken(tmp_path):
    """A set of one class whose sample 2 can be spoiled."""
    folder = tmp_path / "val" / "a"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(6):
        image = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((120, 90), Image.BICUBIC)
        image.save(folder / f"{i}.jpg", quality=90)
    return folder


def spoil(path, how):
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "text":
        path.write_text("this is not an image\n" * 40)
    elif how == "empty":
        path.write_bytes(b"")
    else:  # the quantisation tables are gone: libjpeg refuses it, but the header parses
        at = data.index(b"\xff\xdb")
        path.write_bytes(data[:at] + b"\xff\xfe" + data[at + 2 :])


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("how", ["truncated", "text", "empty", "tables"])
def test_a_broken_image_is_an_error_that_names_it_or_is_skipped_and_counted(broken, name, how, caplog):
    spoil(broken / "2.jpg", how)
    source = open_dataset("folder", "val", broken.parent.parent)
    kw = {"loader": name, "train": False, "batch_size": 3, "size": 32}
    with make_loader(source, **kw) as loader, pytest.raises(RunError, match=r"val/a/2\.jpg") as caught:
        list(loader.batches())
    assert "\n" not in str(caught.value)
    with make_loader(source, on_bad_image="skip", **kw) as loader:
        batches = list(loader.batches())
    assert torch.cat([b.indices for b in batches]).tolist() == [0, 1, 3, 4, 5]
    assert loader.skipped == {2}
    assert "2.jpg" in caplog.text
    for index, image in zip([0, 1], batches[0].images):
        assert np.abs(image.numpy().astype(int) - pillow(source, index, 32)).max() <= 1
