"""Every flag of timm's and torchvision's training scripts is accepted, or refused with its reason or equivalent."""

from __future__ import annotations

import re

import pytest

from fastreg.cli import main
from fastreg.cli.foreign_flags import REFUSED, REFUSED_VALUES, refusal
from fastreg.cli.options import FLAGS

# huggingface/pytorch-image-models aa4b585, train.py
TIMM = """-c --config --data-dir --dataset --train-split --val-split --train-num-samples --val-num-samples
--dataset-download --class-map --input-img-mode --input-key --target-key --dataset-trust-remote-code --model
--pretrained --pretrained-path --initial-checkpoint --resume --no-resume-opt --num-classes --gp --img-size
--in-chans --input-size --crop-pct --mean --std --interpolation -b --batch-size -vb --validation-batch-size
--channels-last --fuser --grad-accum-steps --grad-checkpointing --fast-norm --model-kwargs --head-init-scale
--head-init-bias --torchcompile-mode --torchscript --torchcompile --device --amp --amp-dtype --model-dtype
--no-ddp-bb --synchronize-step --local_rank --device-modules --opt --opt-eps --opt-betas --momentum
--weight-decay --clip-grad --clip-mode --layer-decay --layer-decay-min-scale --layer-decay-no-opt-scale
--opt-kwargs --sched --sched-on-updates --lr --lr-base --lr-base-size --lr-base-scale --lr-noise --lr-noise-pct
--lr-noise-std --lr-cycle-mul --lr-cycle-decay --lr-cycle-limit --lr-k-decay --warmup-lr --min-lr --epochs
--epoch-repeats --start-epoch --decay-milestones --decay-epochs --warmup-epochs --warmup-prefix
--cooldown-epochs --patience-epochs --decay-rate --dr --no-aug --train-crop-mode --scale --ratio --hflip --vflip
--color-jitter --color-jitter-prob --grayscale-prob --gaussian-blur-prob --aa --aug-repeats --aug-splits
--jsd-loss --bce-loss --bce-sum --bce-target-thresh --bce-pos-weight --reprob --remode --recount --resplit
--mixup --cutmix --cutmix-minmax --mixup-prob --mixup-switch-prob --mixup-mode --mixup-off-epoch --smoothing
--train-interpolation --drop --drop-connect --drop-path --drop-block --bn-momentum --bn-eps --sync-bn --dist-bn
--split-bn --model-ema --model-ema-force-cpu --model-ema-decay --model-ema-warmup --seed --worker-seeding
--log-interval --val-interval --recovery-interval --checkpoint-hist -j --workers --save-images --pin-mem
--no-prefetcher --output --experiment --eval-metric --tta --use-multi-epochs-loader --log-wandb --wandb-project
--wandb-tags --wandb-resume-id --train-img-sizes --train-batch-sizes --train-size-probs --train-size-schedule
--train-size-schedule-spread --train-size-random-mix --train-batches-per-epoch --train-steps-per-epoch
--variable-batch-loss-scale --naflex-loader --naflex-train-seq-lens --naflex-max-seq-len --naflex-patch-sizes
--naflex-patch-size-probs --naflex-loss-scale --naflex-patchify-channels-first --kd-model-name --kd-distill-type
--kd-loss-type --distill-loss-weight --task-loss-weight --kd-temperature --kd-student-feature-dim
--kd-teacher-feature-dim --kd-token-distill-type"""
# pytorch/vision, references/classification/train.py of 0.9 to 0.25
TORCHVISION = """--data-path --model --device -b --batch-size --epochs -j --workers --opt --lr --momentum --wd
--weight-decay --norm-weight-decay --bias-weight-decay --transformer-embedding-decay
--label-smoothing --mixup-alpha --cutmix-alpha --lr-scheduler --lr-warmup-epochs --lr-warmup-method
--lr-warmup-decay --lr-step-size --lr-gamma --lr-min --print-freq --output-dir --resume
--start-epoch --cache-dataset --sync-bn --test-only --pretrained --auto-augment --ra-magnitude
--augmix-severity --random-erase --amp --world-size --dist-url --model-ema --model-ema-steps
--model-ema-decay --use-deterministic-algorithms --interpolation --val-resize-size --val-crop-size
--train-crop-size --clip-grad-norm --ra-sampler --ra-reps --weights --backend --use-v2"""
OURS = {name for rows in FLAGS.values() for _, names, _ in rows.values() for name in names.replace("/", " ").split()}
THEIRS = {*TIMM.split(), *TORCHVISION.split()}


def test_every_flag_is_accepted_or_refused():
    assert sorted(THEIRS - OURS - REFUSED.keys()) == []


def test_no_flag_is_accepted_and_refused():
    assert sorted(OURS & REFUSED.keys()) == []
    assert REFUSED.keys() <= THEIRS | {"-d", "--wandb"}
    assert REFUSED_VALUES.keys() <= OURS


def test_each_sentence_names_flags_that_exist():
    """A sentence ends with a full stop, and the training flags in it exist (others are of a named command)."""
    elsewhere = {"--crop-pct", "--image-key", "--label-key", "--suite", "--weights", "--model"}
    values = [sentence for row in REFUSED_VALUES.values() for sentence in row.values()]
    for sentence in (*REFUSED.values(), *values):
        assert sentence.endswith(".")
        assert set(re.findall(r"--[a-z][\w-]*", sentence)) <= OURS | elsewhere, sentence


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--remode rand", "fastreg: --remode rand: give const (the mean color) or pixel (normal noise).\n"),
        ("--recount 2", "fastreg: --recount: random erasing has one box per image, and none is left out.\n"),
        ("--clip-mode=agc", "fastreg: --clip-mode: --clip-grad clips the norm of all gradients.\n"),
        ("-vb 64", "fastreg: -vb: validation takes the batch of the training.\n"),
        ("--opt lamb", "fastreg: --opt lamb: an optimizer of timm: give --opt timm:lamb and --lr.\n"),
        ("--opt=Lion", "fastreg: --opt Lion: an optimizer of timm: give --opt timm:lion and --lr.\n"),
        ("--sched onecycle", "fastreg: --sched onecycle: give --sched linear --warmup 0.3, or cosine with --warmup.\n"),
        ("--mixup-mode pair", "fastreg: --mixup-mode pair: pairs are drawn per batch or per sample"),
        ("--precisio bf16", "fastreg: No such option: --precisio; did you mean --precision?\n"),
        ("--prefetch 4", "fastreg: No such option: --prefetch.\n"),
    ],
)
def test_refusals_on_the_command_line(words, message, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["fastreg", "train", "imagenet", *words.split()])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(message)


def test_values_and_help_are_not_taken_for_flags():
    assert refusal(["imagenet", "--name", "onecycle", "-h", "--help"], ["--name", "-h", "--help"]) is None
    assert refusal(["imagenet", "--lr=-1"], ["--lr"]) is None
