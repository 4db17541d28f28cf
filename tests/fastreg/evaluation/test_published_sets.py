"""The files of ``fastreg corrupt``, read back by plain code and by the suites; files of weights and checkpoints."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fastreg.errors import InputError, RunError
from fastreg.evaluation import corrupted_layouts as layouts
from fastreg.evaluation import evaluate, load_classifier
from fastreg.evaluation.corrupt_dataset import corrupt_dataset
from fastreg.kernels import corrupt, jpeg_round_trip
from fastreg.pipelines import open_dataset
from fastreg.version import __version__
from tests.fastreg.evaluation.tiny_classifier import tiny_net
from tests.support import write_tiny_imagenet


def test_the_folder_layout_holds_the_corrupted_pixels_after_jpeg(imagenet, corrupted_folder):
    from fastreg.pipelines import make_loader

    clean = torch.cat([b.images for b in make_loader(imagenet, train=False, batch_size=16, size=64).batches()])
    done = corrupt(clean, "shot_noise", 4, indices=torch.arange(len(clean)))
    wanted = jpeg_round_trip(done, 85).numpy()
    files = sorted((corrupted_folder / "shot_noise" / "4").glob("*/*.JPEG"))
    assert [f.parent.name for f in files] == sorted(imagenet.classes[label] for label in imagenet.labels)
    stored = np.stack([np.asarray(Image.open(file)) for file in files])
    assert np.array_equal(stored, wanted)
    assert files[0].name == "val_0_000.JPEG"


def test_generated_and_read_give_the_same_errors(imagenet, corrupted_folder):
    net = tiny_net(classes=4)
    same = {"size": 64, "corruptions": "shot_noise,brightness", "batch_size": 5}
    made = evaluate(net, "imagenet-c", imagenet, **same)
    read = evaluate(net, "imagenet-c", imagenet, imagenet_c_dir=corrupted_folder, **same)
    assert len(read.results("imagenet-c")) == 10
    for condition, row in made.results("imagenet-c").items():
        assert read.results("imagenet-c")[condition]["error"] == row["error"]
        assert read.results("imagenet-c")[condition]["confidence"] == pytest.approx(row["confidence"], abs=1e-4)
    made_by = {key: read.suites["imagenet-c"]["settings"][key] for key in ("from", "constants", "seed", "fastreg")}
    assert made_by == {"from": "files of fastreg corrupt", "constants": "tiny64", "seed": 0, "fastreg": __version__}
    partial = evaluate(net, "imagenet-c", imagenet, imagenet_c_dir=corrupted_folder, size=64)
    assert "fog" in partial.missing("imagenet-c")
    assert "imagenet_c_error" not in partial.summary()


def test_published_files_alone_leave_the_clean_images_unread(imagenet, corrupted_folder, monkeypatch):
    from fastreg.evaluation.eval_data import EvalData

    monkeypatch.setattr(EvalData, "decode", lambda *a, **k: pytest.fail("decoded for nothing"))
    card = evaluate(
        tiny_net(classes=4), "imagenet-c", imagenet, imagenet_c_dir=corrupted_folder, corruptions="brightness", size=64
    )
    assert len(card.results("imagenet-c")) == 5


def test_published_folders_that_do_not_fit(imagenet, corrupted_folder, tmp_path):
    net = tiny_net(classes=4)
    with pytest.raises(InputError, match="64 x 64 px, not 96"):
        evaluate(net, "imagenet-c", imagenet, imagenet_c_dir=corrupted_folder, size=96, constants="tiny64")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="none of the corruptions"):
        evaluate(net, "imagenet-c", imagenet, imagenet_c_dir=tmp_path / "empty", size=64)


def test_a_killed_writing_continues_and_ends_the_same(imagenet, corrupted_folder, tmp_path, monkeypatch):
    out, honest, calls = tmp_path / "c", layouts._jpeg, []

    def failing(image):
        calls.append(1)
        if len(calls) == 40:
            raise KeyboardInterrupt
        return honest(image)

    monkeypatch.setattr(layouts, "_jpeg", failing)
    with pytest.raises(KeyboardInterrupt):
        corrupt_dataset(imagenet, out, corruptions="shot_noise,brightness", size=64)
    assert len(json.loads((out / "corrupted.json").read_text())["parts"]) == 2  # of 16 files each
    calls.clear()
    monkeypatch.setattr(layouts, "_jpeg", lambda image: (calls.append(1), honest(image))[1])
    corrupt_dataset(imagenet, out, corruptions="shot_noise,brightness", size=64)
    assert len(calls) == 8 * 16
    for file in corrupted_folder.rglob("*.JPEG"):
        assert (out / file.relative_to(corrupted_folder)).read_bytes() == file.read_bytes()
    assert (out / "corrupted.json").read_text() == (corrupted_folder / "corrupted.json").read_text()
    assert not list(out.rglob("*.tmp"))


def test_files_that_do_not_read_back_are_an_error(imagenet, tmp_path, monkeypatch):
    def forgetful(source, target):
        import pathlib

        pathlib.Path(target).write_bytes(b"")

    monkeypatch.setattr(layouts.os, "replace", forgetful)
    with pytest.raises(RunError, match="does not read back"):
        corrupt_dataset(imagenet, tmp_path / "c", corruptions="brightness", severities=[1], size=64)


def test_destinations_of_something_else_are_refused(imagenet, corrupted_folder, tmp_path):
    with pytest.raises(InputError, match="made with other seed"):
        corrupt_dataset(imagenet, corrupted_folder, corruptions="brightness", size=64, seed=1)
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        corrupt_dataset(imagenet, tmp_path, corruptions="brightness", size=64)
    with pytest.raises(InputError, match="did you mean 'brightness'"):
        corrupt_dataset(imagenet, tmp_path / "c", corruptions="brightnes", size=64)


def test_cifar_arrays_are_severity_major_and_give_the_same_errors(cifar, tmp_path):
    source = open_dataset("cifar100", "val", cifar)
    corrupt_dataset(cifar, tmp_path / "c", corruptions="shot_noise")
    stacked, labels = np.load(tmp_path / "c" / "shot_noise.npy"), np.load(tmp_path / "c" / "labels.npy")
    assert stacked.shape == (100, 32, 32, 3)
    assert np.array_equal(labels, np.tile(source.labels, 5))
    clean = torch.from_numpy(np.stack([source.read(i) for i in range(20)]))
    fourth = corrupt(clean, "shot_noise", 4, indices=torch.arange(20)).numpy()
    assert np.array_equal(stacked[60:80], fourth)
    net = tiny_net(classes=100)
    made = evaluate(net, "cifar-c", source, corruptions="shot_noise", batch_size=7)
    read = evaluate(net, "cifar-c", source, corruptions="shot_noise", cifar_c_dir=tmp_path / "c", batch_size=6)
    for condition, row in made.results("cifar-c").items():
        assert read.results("cifar-c")[condition]["error"] == row["error"]
    with pytest.raises(InputError, match="hold all five: leave"):
        corrupt_dataset(cifar, tmp_path / "d", corruptions="shot_noise", severities="1,2")
    (tmp_path / "c" / "labels.npy").unlink()
    with pytest.raises(InputError, match=r"labels\.npy"):
        evaluate(net, "cifar-c", source, cifar_c_dir=tmp_path / "c")


def test_a_state_dict_gives_the_logits_of_a_plain_forward(tmp_path):
    from fastreg.models import create_model

    torch.manual_seed(0)
    theirs = create_model("resnet18", 5).eval()
    file = tmp_path / "weights.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in theirs.state_dict().items()}}, file)
    ours, config = load_classifier(weights=file, model="resnet18", num_classes=5)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))
    assert not ours.training
    assert config["model"] == "resnet18"


@pytest.mark.parametrize(
    ("content", "model", "classes", "message"),
    [
        ("text", "resnet18", 5, "not a checkpoint that can be read safely (torch.save did not write it"),
        ("{}", "resnet18", 5, "not a checkpoint that can be read safely (torch.save did not write it"),
        ("cut", "resnet18", 5, "cut off"),
        ("object", "resnet18", 5, "it contains Python objects, such as fastreg.models.resnet.ResNet: save"),
        ("list", "resnet18", 5, "not a state dict"),
        ("resnet18", "resnet18", 7, "has 5 classes but the data has 7"),
        ("resnet18", "resnet34", 5, "does not fit resnet34"),
        ("resnet18", None, 5, "needs `model`"),
        ("absent", "resnet18", 5, "no checkpoint at"),
    ],
)
def test_weights_that_do_not_fit_are_one_sentence(tmp_path, content, model, classes, message):
    from fastreg.models import create_model

    file = tmp_path / "weights.pth"
    if content in ("text", "{}"):
        file.write_text("hello" if content == "text" else content)
    elif content in ("object", "cut"):
        torch.save(create_model("resnet18", 5), file)
        file.write_bytes(file.read_bytes()[: 1000 if content == "cut" else None])
    elif content == "list":
        torch.save([1, 2], file)
    elif content == "resnet18":
        torch.save(create_model("resnet18", 5).state_dict(), file)
    with pytest.raises(InputError) as caught:
        load_classifier(weights=file, model=model, num_classes=classes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_image_is_named_and_the_advice_is_not_a_flag_of_evaluation(tmp_path):
    write_tiny_imagenet(tmp_path / "imagenet")
    source = open_dataset("imagenet", "val", tmp_path / "imagenet")
    broken = next((source.root / "val").rglob("*.JPEG"))
    broken.write_bytes(b"not an image")
    with pytest.raises(RunError, match=f"{broken.name}.*`fastreg data verify`.*Training and"):
        evaluate(tiny_net(len(source.classes)), "clean", source, size=32, loader="folder")


def test_images_are_decoded_by_pillow_unless_another_loader_is_asked_for(
    imagenet, corrupted_folder, tmp_path, monkeypatch
):
    """The clean set, ImageNet-C's files and written files, on a machine where training would choose DALI."""
    from fastreg import pipelines

    asked, honest = [], pipelines.make_loader

    def watched(source, *, loader, **more):
        asked.append(loader)
        return honest(source, loader="folder", **more)

    monkeypatch.setattr(pipelines, "make_loader", watched)
    given = {
        "size": 64,
        "corruptions": "brightness",
        "severities": [1],
        "imagenet_c_dir": corrupted_folder,
        "out": tmp_path / "o",
    }
    card = evaluate(tiny_net(classes=4), "clean,imagenet-c", imagenet, **given)
    corrupt_dataset(imagenet, tmp_path / "c", corruptions="brightness", severities=[1], size=64)
    assert asked == ["folder"] * 3
    assert card.settings["loader"] == "folder"
    other = evaluate(tiny_net(classes=4), "clean", imagenet, size=64, loader="dali", out=tmp_path / "o")
    assert asked[3:] == ["dali"]
    assert any("decoded by dali" in note for note in other.notes())
    assert len(list((tmp_path / "o").glob("scorecard*.json"))) == 2  # the first card's rows are not DALI's
    with pytest.raises(InputError, match="unknown `loader` 'foo'"):
        evaluate(tiny_net(classes=4), "clean", imagenet, size=64, loader="foo", out=tmp_path / "o")


def save_run(folder, source, model="resnet18"):
    """A run folder as training leaves it, with weights of a fixed seed."""
    from fastreg import files, runs
    from fastreg.models import create_model

    torch.manual_seed(0)
    net = create_model(model, len(source.classes))
    config = {"dataset": "imagenet", "data_dir": str(source.root), "model": model, "model_args": {}, "stem": "imagenet"}
    config |= {"num_classes": len(source.classes), "classes": list(source.classes), "reg": "mixup", "ls": 0.1}
    config |= {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.2], "eval_size": 32, "epochs": 3}
    files.write_json(folder / "config.json", config)
    runs.save_checkpoint(folder / "best.pt", {"config": config, "model": net.state_dict(), "epoch": 2})
    return net


@pytest.mark.slow
def test_the_command_finds_the_newest_run_its_data_and_its_normalization(imagenet, tmp_path, messages):
    from fastreg.evaluation.from_checkpoint import run

    net = save_run(tmp_path / "runs" / "mine", imagenet)
    card, folder = run(runs_root=tmp_path / "runs", device="cpu")
    assert messages == [f"evaluating {tmp_path}/runs/mine/best.pt on imagenet"]
    assert folder == tmp_path / "runs" / "mine"
    assert (folder / "scorecard.json").is_file()
    direct = evaluate(net, "clean", imagenet, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.2), size=32)
    assert card.results("clean")["clean"]["nll"] == pytest.approx(direct.results("clean")["clean"]["nll"], rel=1e-5)
    assert card.data["size"] == 32
    assert card.provenance["training"]["reg"] == "mixup"
    assert card.provenance["training"]["checkpoint_epoch"] == 3  # counted from 1
    assert card.provenance["training"]["eval_size"] == 32  # all settings of the training
    other, elsewhere = run(folder, data=f"folder:{imagenet.root}/val", device="cpu")
    assert elsewhere != folder
    assert elsewhere.parent == folder
    assert other.summary()["clean_error"] == card.summary()["clean_error"]
    torch.save(net.state_dict(), tmp_path / "theirs.pth")
    foreign, place = run(
        weights=tmp_path / "theirs.pth", model="resnet18", data_dir=imagenet.root, size=32, runs_root=tmp_path / "runs"
    )
    assert place == tmp_path / "runs" / "theirs"
    assert foreign.data["n"] == len(imagenet)
    with pytest.raises(InputError, match="`batch_size` is 0: give 1 or more"):
        run(folder, batch_size=0)
    with pytest.raises(InputError, match="`size` is 0: give 1 or more"):
        run(folder, size=0)
    with pytest.raises(InputError, match="choose one"):
        run(folder, weights=tmp_path / "theirs.pth", model="resnet18", data_dir=imagenet.root)
    with pytest.raises(InputError, match="needs `weights`"):
        run(folder, model="resnet50")


def test_files_count_as_published_without_a_manifest(imagenet, corrupted_folder, tmp_path):
    shutil.copytree(corrupted_folder, tmp_path / "c")
    given = {"imagenet_c_dir": tmp_path / "c", "corruptions": "brightness", "severities": [1], "size": 64}
    net = tiny_net(classes=4)
    (tmp_path / "c" / "corrupted.json").write_text("{")
    with pytest.raises(InputError, match=r"corrupted\.json does not describe how .* was made"):
        evaluate(net, "imagenet-c", imagenet, **given)
    (tmp_path / "c" / "corrupted.json").unlink()
    assert evaluate(net, "imagenet-c", imagenet, **given).suites["imagenet-c"]["settings"]["from"] == "official files"


def test_own_files_of_cifar_name_their_constants(cifar, tmp_path):
    source = open_dataset("cifar100", "val", cifar)
    corrupt_dataset(cifar, tmp_path / "c", corruptions="brightness", constants="tiny64")
    card = evaluate(tiny_net(classes=100), "cifar-c", source, cifar_c_dir=tmp_path / "c", corruptions="brightness")
    assert card.altered("cifar-c") == "constants tiny64 instead of cifar32"
