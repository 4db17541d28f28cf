"""CIFAR-C's arrays: labels must be the data's, memory may be in any order, and unreadable files are named."""

import numpy as np
import pytest

from fastreg.errors import InputError
from fastreg.evaluation import evaluate
from tests.fastreg.evaluation.tiny_classifier import tiny_images


@pytest.fixture
def cifar_c(tmp_path):
    """(a folder with fog.npy and labels.npy, the images they repeat, their labels)"""
    images, labels = tiny_images(12, size=32)
    np.save(tmp_path / "fog.npy", np.concatenate([images.numpy()] * 5))
    np.save(tmp_path / "labels.npy", np.tile(labels.numpy(), 5))
    return tmp_path, images, labels


LABELS = np.tile(tiny_images(12, size=32)[1].numpy(), 5)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (LABELS[::-1], r"labels\.npy has class \d for image \d+ of severity 1 and the data has \d: .* another order"),
        (np.concatenate([LABELS[:24], np.roll(LABELS[24:36], 1), LABELS[36:]]), "of severity 3 and the data has"),
        (LABELS + 50, r"labels from 50 to 55, but the classes are 0 to 5"),
        (LABELS - 1, "labels from -1 to"),
        (LABELS[:, None], r"int64 \[60, 1\], not integers \[n\]"),
        (LABELS + 0.5, r"float64 \[60\], not integers \[n\]"),
        (LABELS[:7], "7 labels for 12 images x 5"),
        (b"junk", r"labels\.npy cannot be read as an array"),
        (b"", r"labels\.npy cannot be read as an array"),
    ],
    ids=["reversed", "one severity rolled", "high", "negative", "2-D", "float", "few", "junk", "empty"],
)
def test_labels_of_cifar_c_that_are_not_the_datas(net, cifar_c, stored, message):
    folder, images, labels = cifar_c
    if isinstance(stored, bytes):
        (folder / "labels.npy").write_bytes(stored)
    else:
        np.save(folder / "labels.npy", stored)
    with pytest.raises(InputError, match=message) as caught:
        evaluate(net, "cifar-c", (images, labels), cifar_c_dir=folder, corruptions="fog")
    assert "\n" not in str(caught.value)


def test_arrays_of_cifar_c_that_cannot_be_read_are_named(net, cifar_c):
    folder, images, labels = cifar_c
    whole = (folder / "fog.npy").read_bytes()
    for content in (b"junk", b"", whole[:5000], b"PK\x03\x04" + whole):
        (folder / "fog.npy").write_bytes(content)
        with pytest.raises(InputError, match=r"fog\.npy cannot be read as an array"):
            evaluate(net, "cifar-c", (images, labels), cifar_c_dir=folder, corruptions="fog")


def test_arrays_in_any_memory_order_and_labels_once_or_five_times(net, cifar_c):
    folder, images, labels = cifar_c
    given = {"cifar_c_dir": folder, "corruptions": "fog"}
    wanted = evaluate(net, "cifar-c", (images, labels), **given).severity_errors("cifar-c")
    np.save(folder / "fog.npy", np.asfortranarray(np.load(folder / "fog.npy")))
    np.save(folder / "labels.npy", labels.numpy().astype(np.uint8))
    assert evaluate(net, "cifar-c", (images, labels), **given).severity_errors("cifar-c") == wanted


def test_an_array_of_one_severity_is_not_read_as_five(net, cifar_c):
    """Of 20 images there are five severities of 4 as well: the data has 20."""
    folder, _, _ = cifar_c
    images, labels = tiny_images(20, size=32)
    np.save(folder / "fog.npy", images.numpy())
    np.save(folder / "labels.npy", labels.numpy())
    given = {"cifar_c_dir": folder, "corruptions": "fog"}
    with pytest.raises(InputError, match=r"fog\.npy has 20 images, as many as the data: it has one severity .* `sev"):
        evaluate(net, "cifar-c", (images, labels), **given)
    card = evaluate(net, "clean,cifar-c", (images, labels), severities=[3], **given)
    assert list(card.results("cifar-c")) == ["fog/3"]
    row = card.results("cifar-c")["fog/3"]
    assert (row["n"], row["error"]) == (20, card.summary()["clean_error"])  # the same pixels
    np.save(folder / "labels.npy", np.roll(labels.numpy(), 1))
    with pytest.raises(InputError, match="another order"):
        evaluate(net, "cifar-c", (images, labels), severities=[3], **given)
