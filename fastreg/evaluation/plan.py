"""What each suite runs: its settings and its steps. Everything that may be missing is found here, before any work."""

from __future__ import annotations

from pathlib import Path

from fastreg.errors import InputError
from fastreg.evaluation import conditions, official, ood
from fastreg.evaluation.subject import Subject
from fastreg.evaluation.suites import corruption_conditions
from fastreg.evaluation.work import Options, Step, Work


def plan(suite: str, subject: Subject, options: Options) -> Work:
    """The work of one suite that is not derived. Raises InputError for what it cannot find or cannot fit."""
    if suite == "clean":
        return Work({}, {"clean": Step(conditions.clean)})
    if suite == "occlusion":
        return Work({"side": subject.size // 2}, {"occlusion": Step(conditions.occlusion)})
    if suite in ("fgsm", "pgd"):
        steps = 1 if suite == "fgsm" else conditions.PGD_STEPS
        settings = {"epsilon": options.epsilon, "clip": options.clip, "steps": steps}
        run = conditions.attack(epsilon=options.epsilon, clip=options.clip, steps=steps, seed=options.seed)
        return Work(settings, {suite: Step(run)})
    if suite == "ood":
        return ood.work(subject, options)
    folder = options.imagenet_c_dir if suite == "imagenet-c" else options.cifar_c_dir
    if folder is not None:
        read = official.imagenet_c if suite == "imagenet-c" else official.cifar_c
        return read(Path(folder), subject, corruption_conditions(options.corruptions, options.severities))
    return _generated(suite, subject, options)


def _generated(suite: str, subject: Subject, options: Options) -> Work:
    if (suite == "cifar-c") != (subject.size == 32) and options.constants == "auto":
        right = "cifar-c" if subject.size == 32 else "imagenet-c"
        raise InputError(
            f"{suite} does not fit {subject.size} px images: use --suite {right}, or choose --constants by name."
        )
    constants = conditions.constants_for(options.constants, subject.size)
    pairs = corruption_conditions(options.corruptions, options.severities)
    textures = None
    if any(name == "frost" for name, _ in pairs):
        textures = conditions.frost_photographs(options.frost_dir, subject.size, constants)
    fidelity = options.fidelity if suite == "imagenet-c" else "dataset"  # CIFAR-C's arrays have no JPEG step
    jpeg = suite == "imagenet-c" and fidelity == "dataset"
    settings = {"from": "generated", "fidelity": fidelity, "jpeg": 85 if jpeg else None, "constants": constants}
    steps = {
        f"{name}/{severity}": Step(
            conditions.corruption(name, severity, seed=options.seed, constants=constants, jpeg=jpeg, textures=textures)
        )
        for name, severity in pairs
    }
    return Work(settings, steps)
