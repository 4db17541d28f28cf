"""Flags and values of timm's train.py and torchvision's references/classification/train.py that fastreg lacks.

Each has its equivalent or the reason. Flags that are accepted are rows of options.py.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable

_MODEL = "give it to the model: --model-args '{{\"{}\": ...}}'."
_LAYOUT = "images are read as RGB, or as gray with --channels 1."
_SPEC = "the data set has its own {0}; to change them, train with your own loop and BatchAugment({0}=...)."
_CROP = "random crops are torchvision's, of 8 to 100 % of the area and ratios 3/4 to 4/3; --reg no_crop_flip has none."
_CYCLES = "the schedules have one cycle and no noise: --sched cosine, step, linear, poly or constant."
_SIZES = "one size for each epoch; --min-size lets it grow to --size."
_NAFLEX = "images are square, so that there are no sequences of several lengths."
_TEACHER = "there is no distillation from a teacher."
_START = "start processes with --gpus N, or with torchrun."
_RATE = "give --lr, the rate for the batch of all processes; a recipe's rate is scaled to the batch without it."
_EMA = "the average is updated after each step, on the device; --model-ema-decay sets its decay."
_ERASE = "random erasing has one box per image, and none is left out."

# flag: sentence after "FLAG: "
REFUSED = {
    # data
    "--dataset": "give the data set as the first word: fastreg train folder --data-dir DIR.",
    "-d": "give the data set as the first word: fastreg train folder --data-dir DIR.",
    "--train-num-samples": "an epoch has every image of the training set once.",
    "--val-num-samples": "validation takes every image once.",
    "--dataset-download": "run fastreg data fetch cifar100 before.",
    "--dataset-trust-remote-code": "data are files; no code of a data set is run.",
    "--input-img-mode": _LAYOUT,
    "--input-key": "shards with jpg, png or webp and cls need none; --image-key names another.",
    "--target-key": "shards with jpg, png or webp and cls need none; --label-key names another.",
    "--num-classes": "it is that of the data set.",
    "--cache-dataset": "--loader resident keeps the decoded images in memory.",
    "--use-multi-epochs-loader": "loaders live for the whole run.",
    "--no-prefetcher": "the next batches are always prepared in the background.",
    "--pin-mem": "batches are copied from pinned memory where there is a GPU.",
    "--worker-seeding": "random numbers depend on --seed and the image, not on workers.",
    # model
    "--pretrained-path": "give --initial-checkpoint FILE.",
    "--weights": "give --pretrained, or --initial-checkpoint FILE.",
    "--gp": _MODEL.format("global_pool"),
    "--drop-connect": "give --drop-path.",
    "--drop-block": _MODEL.format("drop_block_rate"),
    "--bn-momentum": _MODEL.format("bn_momentum"),
    "--bn-eps": _MODEL.format("bn_eps"),
    "--grad-checkpointing": "activations are kept; --grad-accum-steps saves memory.",
    "--fast-norm": "--precision bf16 runs norms as PyTorch's autocast does.",
    "--head-init-scale": "the head is initialized as the model does.",
    "--head-init-bias": "the head is initialized as the model does.",
    "--torchscript": "give --torchcompile.",
    "--fuser": "give --torchcompile.",
    "--torchcompile-mode": "give the mode to --torchcompile.",
    "--backend": "quantized models are not trained.",
    # pixels
    "--input-size": "give --size.",
    "--train-img-sizes": _SIZES,
    "--train-batch-sizes": _SIZES,
    "--train-size-probs": _SIZES,
    "--train-size-schedule": _SIZES,
    "--train-size-schedule-spread": _SIZES,
    "--train-size-random-mix": _SIZES,
    "--variable-batch-loss-scale": _SIZES,
    "--mean": _SPEC.format("mean"),
    "--std": _SPEC.format("std"),
    "--train-interpolation": "images are resized bilinearly.",
    "--train-crop-mode": _CROP,
    "--scale": _CROP,
    "--ratio": _CROP,
    "--no-aug": "give --reg no_crop_flip.",
    "--hflip": "images are flipped with probability 1/2; --reg no_crop_flip turns it off.",
    "--vflip": "images are not flipped vertically.",
    "--color-jitter-prob": "--color-jitter changes every image.",
    "--grayscale-prob": "there is no random grayscale.",
    "--gaussian-blur-prob": "there is no random blur.",
    "--use-v2": "images are augmented on the device, in one launch.",
    # method and loss
    "--recount": _ERASE,
    "--resplit": _ERASE,
    "--cutmix-minmax": "boxes are drawn from --cutmix ALPHA.",
    "--bce-pos-weight": "give --class-weight, which weights the classes and not their positive terms.",
    # schedule
    "--validation-batch-size": "validation takes the batch of the training.",
    "-vb": "validation takes the batch of the training.",
    "--opt-kwargs": "give --opt-eps, --opt-betas, --momentum, --weight-decay.",
    "--bias-weight-decay": "--no-norm-weight-decay leaves norms and biases without weight decay.",
    "--transformer-embedding-decay": "--no-norm-weight-decay leaves norms and biases without weight decay.",
    "--clip-mode": "--clip-grad clips the norm of all gradients.",
    "--layer-decay-min-scale": "give --layer-decay alone.",
    "--layer-decay-no-opt-scale": "give --layer-decay alone, or --freeze NAMES.",
    "--lr-base": _RATE,
    "--lr-base-size": _RATE,
    "--lr-base-scale": _RATE,
    "--lr-noise": _CYCLES,
    "--lr-noise-pct": _CYCLES,
    "--lr-noise-std": _CYCLES,
    "--lr-cycle-mul": _CYCLES,
    "--lr-cycle-decay": _CYCLES,
    "--lr-cycle-limit": _CYCLES,
    "--lr-k-decay": _CYCLES,
    "--patience-epochs": "no schedule depends on the validation: give --sched cosine or step.",
    "--dr": "give --decay-rate.",
    "--epoch-repeats": "give --epochs times as large.",
    "--train-batches-per-epoch": "an epoch has every image of the training set once.",
    "--train-steps-per-epoch": "an epoch has every image of the training set once.",
    "--start-epoch": "--resume continues at the step of the checkpoint.",
    "--no-resume-opt": "start a new run: --initial-checkpoint FILE.",
    "--val-interval": "each epoch is validated.",
    "--eval-metric": "best.pt has the lowest top-1 error.",
    "--tta": "the reported errors are of one view.",
    "--test-only": "fastreg eval --weights FILE --model NAME --suite clean.",
    "--checkpoint-hist": "last.pt and best.pt are kept.",
    "--save-images": "fastreg show draws images.",
    "--model-ema-force-cpu": _EMA,
    "--wandb": "give --log-wandb.",
    "--wandb-project": "--log-wandb reads the environment variable WANDB_PROJECT.",
    "--wandb-tags": "--log-wandb reads the environment variable WANDB_TAGS.",
    "--wandb-resume-id": "--resume continues the run in Weights & Biases, too.",
    # execution
    "--model-dtype": "weights are float32; --precision sets the computations.",
    "--no-ddp-bb": "buffers are not broadcast; the statistics of all processes are averaged before each validation.",
    "--dist-bn": "the statistics of all processes are averaged before each validation; --sync-bn shares them per step.",
    "--split-bn": "batch norm has one set of statistics; --sync-bn shares them.",
    "--synchronize-step": "steps never wait for the GPU.",
    "--device-modules": "the device is a CPU or a CUDA GPU.",
    "--local_rank": _START,
    "--world-size": _START,
    "--dist-url": _START,
    **dict.fromkeys(("--naflex-loader", "--naflex-train-seq-lens", "--naflex-max-seq-len"), _NAFLEX),
    **dict.fromkeys(("--naflex-patch-sizes", "--naflex-patch-size-probs", "--naflex-loss-scale"), _NAFLEX),
    "--naflex-patchify-channels-first": _NAFLEX,
    **dict.fromkeys(("--kd-model-name", "--kd-distill-type", "--kd-loss-type", "--kd-temperature"), _TEACHER),
    **dict.fromkeys(("--kd-student-feature-dim", "--kd-teacher-feature-dim", "--kd-token-distill-type"), _TEACHER),
    **dict.fromkeys(("--distill-loss-weight", "--task-loss-weight"), _TEACHER),
}
_TIMM_OPTIMIZERS = (
    *("adabelief", "adadelta", "adafactor", "adagrad", "adahessian", "adamp", "adan", "adopt", "cadamw", "lamb"),
    *("laprop", "larc", "lars", "lion", "madgrad", "mars", "muon", "nadam", "nadamw", "novograd", "radam", "rmsprop"),
    *("rmsproptf", "sgdp"),
)
_PAIR = "pairs are drawn per batch or per sample: give --mixup-mode batch or elem."
# flag: value: sentence after "FLAG VALUE: "
REFUSED_VALUES = {
    "--opt": {name: f"an optimizer of timm: give --opt timm:{name} and --lr." for name in _TIMM_OPTIMIZERS},
    "--sched": {
        "onecycle": "give --sched linear --warmup 0.3, or cosine with --warmup.",
        "tanh": "give --sched cosine.",
        "plateau": "no schedule depends on the validation: give --sched cosine or step.",
        "exponentiallr": "give --sched step with --decay-rate and --decay-epochs 1.",
    },
    "--mixup-mode": {"pair": _PAIR, "half": _PAIR},
}
REFUSED_VALUES["--remode"] = {"rand": "give const (the mean color) or pixel (normal noise)."}
REFUSED_VALUES["--lr-scheduler"] = REFUSED_VALUES["--sched"]
_CLOSE = 0.8  # similarity from which another flag is a likely misspelling


def refusal(words: Iterable[str], flags: Iterable[str]) -> str | None:
    """The sentence about the first flag or value on a command line that fastreg lacks, or None.

    Args:
        words: the command line.
        flags: the flags that the command has.
    """
    words, flags = list(itertools.takewhile(lambda word: word != "--", words)), list(flags)
    for at, word in enumerate(words):
        flag, _, value = word.partition("=")
        if flag in flags or not flag.startswith("-"):
            value = value or (words[at + 1] if at + 1 < len(words) else "")
            if sentence := REFUSED_VALUES.get(flag, {}).get(value.lower()):
                return f"{flag} {value}: {sentence}"
        elif flag in REFUSED:
            return f"{flag}: {REFUSED[flag]}"
        elif flag.startswith("--"):
            near = difflib.get_close_matches(flag, flags, n=1, cutoff=_CLOSE)
            return f"No such option: {flag}{f'; did you mean {near[0]}?' if near else '.'}"
    return None
