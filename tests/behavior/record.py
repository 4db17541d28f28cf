"""Records the behavior of a checkout as digests, and compares two recordings.

    python tests/behavior/record.py --out FILE.json                   record this checkout
    python tests/behavior/record.py --compare FILE.json               record this checkout, compare with FILE
    python tests/behavior/record.py --checkout DIR --out FILE.json    record the checkout at DIR
    python tests/behavior/record.py --compare A.json --with B.json    compare two recordings

``--only draws,corrupt/cifar32`` restricts all of these to cases whose names begin with one of the words. All cases take
about three minutes on two cores.

The JSON has tables by case. ``portable`` has settings, names, integers and uint8 images, which are the same on every
CPU. ``local`` has floating-point results, which are compared only if ``machine`` is the same in both files. ``skipped``
has the reasons why cases did not run, ``failed`` the errors of failed cases. A comparison fails on each value of the
first file that is missing or different in the second. Values of the second file alone are no failure. The exit code is
1 if a comparison or a case fails.

Only public entry points are used: the command line, ``fastreg.methods.create``, ``fastreg.kernels``,
``fastreg.evaluation``, ``fastreg.models.create_model``, ``fastreg.metrics``, ``fastreg.recipes``,
``fastreg.pipelines.open_dataset``, and the files that commands write.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# (case, difference) of changes since 25d715e that are meant; "" stands for every case
INTENDED = {
    # GPUs compile known models by default; CPUs do not
    ("", "config/torchcompile: None became 'auto'"),
    # files that `fastreg corrupt` wrote were called official
    ("eval/mixup", "files imagenet-c/settings/from: 'official files' became 'files of fastreg corrupt'"),
}
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TRITON_INTERPRET": "0"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the JSON to write")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="a recording to compare with")
    parser.add_argument("--with", type=Path, metavar="FILE", dest="other", help="a second recording, instead of a new")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="the checkout to record; default: this one")
    parser.add_argument("--only", default="", help="beginnings of case names, joined by commas")
    given = parser.parse_args()
    only = tuple(word for word in given.only.split(",") if word)
    if given.other is None:
        checkout = given.checkout.resolve()
        wanted = {"PYTHONPATH": str(checkout), **THREADS}
        if any(os.environ.get(key) != value for key, value in wanted.items()):
            os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})
        found = record(checkout, only)
    else:
        found = json.loads(given.other.read_text())
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    if given.compare is None:
        return 1 if found["failed"] else 0
    lines, failed = compare(json.loads(given.compare.read_text()), found, only)
    print("\n".join(lines))
    return 1 if failed else 0


def record(checkout: Path, only: tuple[str, ...] = ()) -> dict[str, Any]:
    """Runs the cases against ``checkout``, which must come first on the path."""
    import commands
    import digests
    import draws
    import pixels
    import settings
    import torch

    torch.set_num_threads(1)
    found: dict[str, Any] = {"machine": digests.machine(), "portable": {}, "local": {}, "skipped": {}, "failed": {}}
    for module in (draws, pixels, settings, commands):
        for name, call in module.cases():
            if only and not name.startswith(only):
                continue
            start = time.monotonic()
            case = digests.Case()
            try:
                call(case)
            except pixels.Skip as skip:
                found["skipped"][name] = str(skip)
                print(f"{name}: skipped, {skip}", file=sys.stderr)
                continue
            except Exception as error:
                found["failed"][name] = f"{type(error).__name__}: {error}"
                print(f"{name}: failed, {found['failed'][name]}", file=sys.stderr)
                continue
            for table in ("portable", "local"):
                if content := getattr(case, table):
                    found[table][name] = json.loads(json.dumps(content))
            print(f"{name}: {time.monotonic() - start:.1f} s", file=sys.stderr)
    strange = [
        f"{name} ({module.__file__})"
        for name, module in sys.modules.items()
        if name.partition(".")[0] == "fastreg"
        and module.__file__
        and checkout not in Path(module.__file__).resolve().parents
    ]
    if strange:
        raise SystemExit(f"not imported from {checkout}: {', '.join(strange)}")
    return found


def compare(first: dict[str, Any], second: dict[str, Any], only: tuple[str, ...] = ()) -> tuple[list[str], int]:
    """(lines to print, number of differences) between two recordings."""
    lines = [f"{name}: failed, {reason}" for name, reason in second["failed"].items()]
    failed, equal = len(lines), 0
    tables = ["portable"]
    if first["machine"] == second["machine"]:
        tables.append("local")
    else:
        lines.append(f"local values are not compared: {first['machine']} and {second['machine']}")
    for table in tables:
        for name, content in first[table].items():
            if only and not name.startswith(only):
                continue
            if reason := second["skipped"].get(name):
                lines.append(f"{name}: not compared, {reason}")
                continue
            found = differences(content, second[table].get(name))
            found = [line for line in found if INTENDED.isdisjoint({(name, line), ("", line)})]
            equal += not found
            failed += len(found)
            lines += [f"{table} {name}: {line}" for line in found]
    lines += [f"{name}: not compared, {reason}" for name, reason in first["skipped"].items()]
    return [*lines, f"{equal} tables are equal, {failed} values differ"], failed


def differences(first: Any, second: Any, where: str = "") -> list[str]:
    """Each value of ``first`` that ``second`` lacks or has otherwise."""
    if isinstance(first, dict) and isinstance(second, dict):
        pairs = [(key, value, second.get(key, "missing")) for key, value in first.items()]
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        pairs = [(key, *both) for key, both in enumerate(zip(first, second))]
    else:
        return [] if first == second else [f"{where or 'all'}: {first!r} became {second!r}"]
    return [line for key, a, b in pairs for line in differences(a, b, f"{where}/{key}" if where else str(key))]


if __name__ == "__main__":
    sys.exit(main())
