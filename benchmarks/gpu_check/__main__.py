"""The GPU gate: ``PYTHONPATH=. python benchmarks/gate.py --out DIR [--quick]``, on a bare checkout, in nine minutes.

Needs torch with CUDA, triton, numpy, opencv and typer; everything else that is missing is named in the results. Where
there is no imagenet data set, the sample of scikit-image's photographs is written into DIR/data and used. Each part is
a process of its own with a time limit, the most valuable first, and may use what the parts before it left of theirs;
what a part has measured is on disk before the next begins. The last thing printed is a short table and the judge's
verdict; exit 1 when a check, a part or a target failed, or when nothing was checked. A suite that its limit stops keeps
its rows and is no failure; unfinished checks are one. What earlier runs of the same parts left in DIR is deleted first,
so DIR is never the folder of the package's own records; only what this run measured is judged.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
TOTAL = 520.0  # seconds
NOT_RUN = "not run"
SAMPLE = Path("data", "imagenet")  # in DIR


class Part(NamedTuple):
    name: str
    seconds: float  # its limit; the sum is below nine minutes
    suite: str = ""  # what `fastreg bench` is asked for


PARTS = (
    Part("parity", 110),
    Part("kernels", 110, "kernels"),
    Part("loss", 55, "loss"),
    Part("throughput", 95, "throughput"),
    Part("corruptions", 75, "corruptions"),
    Part("eval", 40, "eval"),
    Part("loaders", 45, "loaders"),
)


def command(part: Part, out: Path, device: str, quick: bool) -> list[str]:
    words = ["--out", str(out if part.suite else out / "parity.json"), "--device", device]
    words += ["--quick"] if quick else []
    if part.suite:
        words += ["--data-dir", str(out / SAMPLE)] if (out / SAMPLE).is_dir() else []
        return [sys.executable, "-m", "fastreg", "bench", part.suite, *words]
    return [sys.executable, "-m", "fastreg.benchmarks.gpu_check.parity", *words]


def run_part(part: Part, out: Path, device: str, quick: bool, limit: float) -> dict[str, object]:
    """Run one part, its output into ``<part>.log``; the process group is killed at the limit."""
    start = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with open(out / f"{part.name}.log", "w") as log:
        child = subprocess.Popen(
            command(part, out, device, quick),
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = {0: "passed"}.get(child.wait(timeout=limit), "failed")
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            status = "stopped at its limit"
    tail = (out / f"{part.name}.log").read_text(errors="replace").strip().splitlines()[-1:]
    seconds = round(time.monotonic() - start, 1)
    return {"name": part.name, "status": status, "seconds": seconds, "last_line": tail[0] if tail else ""}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gate.py", description="Check and time every kernel on this GPU.")
    parser.add_argument("--out", required=True, help="folder for the results")
    parser.add_argument("--quick", action="store_true", help="fewer cases, a quarter of the time")
    parser.add_argument("--device", default="cuda", help="cpu only tries the gate itself")
    parser.add_argument("--parts", help="only these, joined by commas")
    given = parser.parse_args(arguments)
    sys.path[:] = [str(ROOT), *(p for p in sys.path if Path(p or ".").resolve() != ROOT / "benchmarks")]
    import torch

    from fastreg.benchmarks import RESULTS
    from fastreg.errors import InputError, unknown

    names = [part.name for part in PARTS]
    wanted = given.parts.split(",") if given.parts else names
    for name in wanted:
        if name not in names:
            print(f"gate: {unknown('part', name, names)}", file=sys.stderr)
            return 2
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        print("gate: this machine has no CUDA device; run it where there is one.", file=sys.stderr)
        return 1
    out = Path(given.out).resolve()
    if out == RESULTS:
        print(
            f"gate: {out} holds the package's own records: give another folder and copy what passes.", file=sys.stderr
        )
        return 2
    out.mkdir(parents=True, exist_ok=True)
    chosen = [part for part in PARTS if part.name in wanted]
    try:
        clear(out, chosen)
    except InputError as error:
        print(f"gate: {error} Or give another folder with --out.", file=sys.stderr)
        return 2
    if any(part.suite for part in chosen):
        write_sample_data(out)
    begun, allowed = time.monotonic(), 0.0
    parts: list[dict[str, object]] = []
    for part in chosen:
        allowed += part.seconds
        left = min(allowed, TOTAL) - (time.monotonic() - begun)
        if left < 5:
            parts.append({"name": part.name, "status": NOT_RUN, "seconds": 0.0, "last_line": "no time was left"})
        else:
            parts.append(run_part(part, out, given.device, given.quick, left))
        print(f"{part.name}: {parts[-1]['status']} in {parts[-1]['seconds']} s", flush=True)
        (out / "gate.json").write_text(
            json.dumps({"device": given.device, "quick": given.quick, "parts": parts}, indent=2)
        )
    return verdict(out, parts)


def write_sample_data(out: Path) -> None:
    """The sample data set in ``out``, unless an imagenet data set is found; without it loaders say what they lack."""
    from fastreg.errors import InputError, RunError
    from fastreg.pipelines import open_dataset, write_sample

    try:
        open_dataset("imagenet", "train")
    except InputError:
        try:
            write_sample("imagenet", out / SAMPLE)
        except (InputError, RunError) as error:
            print(f"gate: the loaders have no photographs: {error}", flush=True)


def records(out: Path) -> list[Path]:
    return [path for path in sorted(out.glob("*.json")) if path.name not in ("gate.json", "parity.json")]


def clear(out: Path, parts: list[Part]) -> None:
    """Delete what earlier runs of these parts left: logs, checks, and their suites in the records, no other suite."""
    from fastreg import files
    from fastreg.benchmarks import record

    suites = {part.suite for part in parts}
    for path in records(out):
        old = record.read(path)
        kept = {suite: content for suite, content in old["suites"].items() if suite not in suites}
        if kept:
            files.write_json(path, {**old, "suites": kept})
        else:
            path.unlink()
    stale = [f"{part.name}.log" for part in parts] + ["gate.json"]
    stale += [] if all(part.suite for part in parts) else ["parity.json"]
    for name in stale:
        (out / name).unlink(missing_ok=True)


def verdict(out: Path, parts: list[dict[str, object]]) -> int:
    """The short table, then the judge's word on what these parts measured; 1 when anything failed or nothing ran."""
    from fastreg.benchmarks import RESULTS, record
    from fastreg.benchmarks import compare as judge
    from fastreg.benchmarks.gpu_check import parity
    from fastreg.benchmarks.report.terminal import duration

    ran = {part["name"] for part in parts if part["status"] != NOT_RUN}
    failed = [
        f"part {part['name']}: {part['status']} ({part['last_line']})"
        for part in parts
        if part["status"] == "failed" or (part["status"] != "passed" and part["name"] == "parity")
    ]
    failed += [] if ran else ["no part ran"]
    if "parity" in ran:
        path = out / "parity.json"
        checks = json.loads(path.read_text()) if path.is_file() else []
        failed += [f"check {check['name']}: {check['detail']}" for check in checks if not check["ok"]]
        if all(check["detail"].startswith(parity.UNCHECKED) for check in checks):
            failed.append("part parity: it checked nothing")
    left = {part.name for part in PARTS if part.suite} & ran  # suites that have yet to show results
    asked = bool(left)
    verdicts: list[judge.Verdict] = []
    for path in records(out):
        found = record.read(path)
        suites = {part.suite for part in PARTS if part.name in ran}
        found["suites"] = {suite: content for suite, content in found["suites"].items() if suite in suites}
        left -= found["suites"].keys()
        earlier = RESULTS / path.name
        verdicts += judge.judge(found, record.read(earlier) if earlier.is_file() else None)
        for suite, content in found["suites"].items():
            failed += [
                f"{suite}: {one['name']}: {one['reason']}"
                for one in content["absent"]
                if one["variant"] == record.OURS and one["reason"].startswith(record.FAILED)
            ]
        for suite, row in record.rows_of(found):
            if row.variant == record.OURS:
                rate = f"{row.images_per_second:12,.0f} images/s" if row.images else ""
                copy = f"{100 * row.of_copy:4.0f} % of copy" if row.limit_us else ""
                print(f"{suite:11} {row.name:32} {duration(row.us):>9} {rate:24} {copy}")
    failed += [f"part {name}: it left no results" for name in sorted(left)]
    for text in failed:
        print(f"FAILED {text}")
    judged = judge.report(verdicts) if asked else 0
    return int(bool(failed) or judged > 0)


if __name__ == "__main__":
    sys.exit(main())
