"""The flags of ``fastreg eval``.

A row is an option of ``evaluation.config.EvalConfig`` or an argument of ``evaluation.from_checkpoint.run``.
"""

from __future__ import annotations

from pathlib import Path

from fastreg.cli.options import Flags
from fastreg.pipelines.loader_table import loader_help

FLAGS: Flags = {
    "Model": {
        "weights": (Path, "--weights", "A file of weights instead of a checkpoint."),
        "weights_key": (str, "--weights-key", "Key of the weights in that file, such as state_dict_ema."),
        "model": (
            str,
            "--model",
            "Architecture of --weights; alone: timm:NAME, torchvision:NAME, robustbench:NAME, package.module:function.",
        ),
        "mean": (str, "--mean", "Normalization: data, none (with --std none: pixels), or numbers joined by commas."),
        "std": (str, "--std", "The same."),
        "precision": (str, "--precision", "fp32 (also auto), bf16 or fp16; default fp32."),
        "compiled": (bool, "--torchcompile", "Compile the model."),
        "device": (str, "--device", "auto, cpu, cuda, cuda:1 ..."),
        "batch_size": (int, "-b --batch-size", "Images per forward pass; default 256 on a GPU, 64 on a CPU."),
    },
    "Data": {
        "data": (str, "--data", "A data set, or folder:DIR; default: that of the training."),
        "data_dir": (Path, "--data-dir", "Root of the data set."),
        "val_split": (str, "--val-split", "Name of the split, in names of folders and shards; default: the run's."),
        "val_share": (float, "--val-share", "This share of a set without a validation split; default: the run's."),
        "train_split": (str, "--train-split", "Name of the split that --val-share divides; default: the run's."),
        "image_key": (str, "--image-key", "Shards: extension or column of the image."),
        "label_key": (str, "--label-key", "Shards: extension, JSON field or column of the label."),
        "class_map": (str, "--class-map", "timm, torchvision, or a file of class names and outputs."),
        "cache_dir": (str, "--cache-dir", "Folder for copies of remote files."),
        "cache_gb": (float, "--cache-gb", "Its limit in GB; default 100."),
        "size": (int, "--size --img-size", "Side of the images in pixels; default: the run's, else 224."),
        "crop_pct": (
            float,
            "--crop-pct",
            "Size over the resized side; default 0.875. 1 keeps images of the size whole.",
        ),
        "interpolation": (
            str,
            "--interpolation",
            "Of the resize: bilinear, bicubic, lanczos or nearest; default bilinear.",
        ),
        "protocol": (
            str,
            "--protocol",
            "paper; published: size, crop and interpolation of timm's or torchvision's weights.",
        ),
        "scored_classes": (
            str,
            "--classes",
            "Competing outputs on data with fewer classes: subset or all.",
        ),
        "loader": (str, "--loader", f"{loader_help(evaluation=True)}; auto is folder, the published protocol."),
        "workers": (int, "-j --workers", "Decoding threads."),
    },
    "Suites": {
        "epsilon": (float, "--epsilon", "Of the attacks, on the [0, 1] scale; default 8/255."),
        "clip": (bool, "--clip/--no-clip", "Keep attacked pixels in [0, 1]; default yes."),
        "attack_norm": (str, "--attack-norm", "linf or l2, of pgd and autoattack; default linf."),
        "attack_steps": (int, "--attack-steps", "Steps of pgd; default 10."),
        "attack_step_size": (float, "--attack-step-size", "Length of a step of pgd; default epsilon / 4."),
        "attack_restarts": (int, "--attack-restarts", "Random starts of pgd; default 1."),
        "attack_target": (str, "--attack-target", "least_likely: aim pgd at the class of least probability."),
        "attack_samples": (int, "--attack-samples", "Passes per gradient of pgd, for random models; default 1."),
        "fidelity": (str, "--fidelity", "dataset (with ImageNet-C's JPEG step, also auto) or memory; default dataset."),
        "constants": (str, "--constants", "imagenet224, imagenet299, tiny64 or cifar32; default auto, by size."),
        "corruptions": (str, "--corruptions --corruption", "Only these, joined by commas."),
        "severities": (str, "--severities --severity", "Only these, joined by commas."),
        "frost_dir": (Path, "--frost-dir", "Folder of the frost images."),
        "imagenet_c_dir": (Path, "--imagenet-c-dir", "Read ImageNet-C's published files."),
        "resize_official": (bool, "--resize-official", "Resize these files to --size, for models of another size."),
        "imagenet_c_bar_dir": (Path, "--imagenet-c-bar-dir", "Read ImageNet-C-bar's published files."),
        "cifar_c_dir": (Path, "--cifar-c-dir", "Read CIFAR-C's published arrays."),
        "perturbations": (str, "--perturbations --perturbation", "Of imagenet-p and cifar-p: only these."),
        "imagenet_p_dir": (Path, "--imagenet-p-dir", "Read ImageNet-P's published videos."),
        "cifar_p_dir": (Path, "--cifar-p-dir", "Read CIFAR-10-P's or CIFAR-100-P's published arrays."),
        "ood_dir": (Path, "--ood-dir", "Folder of the out-of-distribution sets."),
        "odin_split": (bool, "--odin-split", "Leave out ODIN's tuning images."),
        "ood_scores": (
            str,
            "--ood-scores",
            "Scores of ood-features, joined by commas; default: all that are possible.",
        ),
        "ood_val_dir": (
            Path,
            "--ood-val-dir",
            "Folder, or OpenOOD's list, of images on which ood-features chooses hyperparameters.",
        ),
        "fit_data": (
            Path,
            "--fit-data",
            "Class folders of training images for scores from features; default: the data's.",
        ),
        "fit_images": (int, "--fit-images", "At most so many of them, balanced by class; default 50000."),
        "feature_layer": (str, "--feature-layer", "Layer of the features; default: the last linear layer's input."),
        "seed": (int, "--seed", "Key of every random draw; default 0."),
    },
    "Result": {
        "out": (Path, "--out", "Folder for scorecard.json; default: the run's."),
        "runs_root": (Path, "--runs", "Folder of run folders; default runs."),
    },
}
