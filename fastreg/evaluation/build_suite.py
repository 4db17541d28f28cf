"""What each suite runs: its settings and its steps. Everything that may be missing is found here, before any work."""

from __future__ import annotations

from pathlib import Path

from fastreg.errors import InputError
from fastreg.evaluation import conditions, ood
from fastreg.evaluation import published_sets as official
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.suites import corruption_conditions
from fastreg.evaluation.types import Condition, EvalConfig, SuitePlan


def plan(suite: str, eval_data: EvalData, options: EvalConfig) -> SuitePlan:
    """The work of one suite that is not derived. Raises InputError for what it cannot find or cannot fit."""
    if suite == "clean":
        return SuitePlan({}, {"clean": Condition(conditions.clean)})
    if suite == "occlusion":
        return SuitePlan({"side": eval_data.size // 2}, {"occlusion": Condition(conditions.occlusion)})
    if suite in ("fgsm", "pgd"):
        steps = 1 if suite == "fgsm" else conditions.PGD_STEPS
        settings = {"epsilon": options.epsilon, "clip": options.clip, "steps": steps}
        run = conditions.attack(epsilon=options.epsilon, clip=options.clip, steps=steps, seed=options.seed)
        return SuitePlan(settings, {suite: Condition(run)})
    if suite == "ood":
        return ood.work(eval_data, options)
    folder = options.imagenet_c_dir if suite == "imagenet-c" else options.cifar_c_dir
    if folder is not None:
        read = official.imagenet_c if suite == "imagenet-c" else official.cifar_c
        return read(Path(folder), eval_data, corruption_conditions(options.corruptions, options.severities))
    return _generated(suite, eval_data, options)


def _generated(suite: str, eval_data: EvalData, options: EvalConfig) -> SuitePlan:
    if (suite == "cifar-c") != (eval_data.size == 32) and options.constants == "auto":
        right = "cifar-c" if eval_data.size == 32 else "imagenet-c"
        raise InputError(
            f"{suite} does not fit {eval_data.size} px images: use --suite {right}, or choose --constants by name."
        )
    constants = conditions.constants_for(options.constants, eval_data.size)
    pairs = corruption_conditions(options.corruptions, options.severities)
    textures = None
    if any(name == "frost" for name, _ in pairs):
        textures = conditions.frost_photographs(options.frost_dir, eval_data.size, constants)
    fidelity = options.fidelity if suite == "imagenet-c" else "dataset"  # CIFAR-C's arrays have no JPEG step
    jpeg = suite == "imagenet-c" and fidelity == "dataset"
    settings = {"from": "generated", "fidelity": fidelity, "jpeg": 85 if jpeg else None, "constants": constants}
    steps = {
        f"{name}/{severity}": Condition(
            conditions.corruption(name, severity, seed=options.seed, constants=constants, jpeg=jpeg, textures=textures)
        )
        for name, severity in pairs
    }
    return SuitePlan(settings, steps)
