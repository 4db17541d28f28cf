"""Compile a registry variant without a GPU and read its machine code.

``python -m tests.kernels.aot`` writes the table of ``kernels/README.md``.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastreg.kernels.registry import Variant
from tests.support import ROOT

README = ROOT / "kernels/README.md"
# the corruptions have a README of their own
IN_README = ("augmentation", "auto_augmentation", "cross_entropy", "attacks", "color")
COMPILER = f"Triton {triton.__version__}, sm_90"  # the table names its compiler: another one allocates other registers
_CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]+)", re.MULTILINE)


class Code(NamedTuple):
    """Resources, instructions and memory accesses of one compilation."""

    registers: int
    stack: int
    local: int
    shared: int
    instructions: float  # per element; a loop's body counts once
    memory: Counter[str]  # PTX memory instruction: count, "ld.global.v4.b32": 7
    approximate: Counter[str]  # PTX instruction that is not correctly rounded: count, "sqrt.approx.f32": 4


def read(variant: Variant, capability: int, folder: Path) -> Code:
    options = {"num_warps": variant.warps, "enable_fp_fusion": variant.fusion}
    compiled = triton.compile(source(variant), target=GPUTarget("cuda", capability, 32), options=options)
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    usage = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", _dump("-res-usage", cubin))
    assert usage, "cuobjdump printed no resource usage"
    registers, stack, shared, local = map(int, usage.groups())
    code = [i for i in _INSTRUCTION.findall(_dump("-sass", cubin)) if i not in ("NOP", "BRA")]
    memory = Counter(re.findall(r"\b(?:ld|st|red|atom)\.(?:global|shared|local)[.\w:]*", compiled.asm["ptx"]))
    approximate = Counter(re.findall(r"\b\w+\.(?:approx|full)[.\w]*", compiled.asm["ptx"]))
    per_element = len(code) * 32 * variant.warps / variant.elements
    return Code(registers, stack, local, shared, per_element, memory, approximate)


def variants_in_readme() -> list[Variant]:
    modules = [importlib.import_module(f"fastreg.kernels.{name}.registry") for name in IN_README]
    return [variant for module in modules for op in module.OPS for variant in op.aot]


def row(variant: Variant, code: Code) -> str:
    """A line of the README's table."""
    found = ((name.replace("global.", ""), n) for name, n in sorted(code.memory.items()) if "global" in name)
    memory = ", ".join(f"{n} {name}" for name, n in found)
    return f"| {variant.label} | {code.registers} | {code.instructions:.1f} | {code.shared} | {memory} |"


def table(text: str) -> tuple[int, int]:
    """Start and end of the rows of the README's table."""
    head = re.search(r"\n\| kernel \(.*?\) \|.*\n\|[-|]+\|\n", text)
    assert head, f"{README} has no table of machine code"
    return head.end(), text.index("\n\n", head.end())


def compiler_in_readme(text: str) -> str:
    found = re.search(r"\n\| kernel \((.*?)\) \|", text)
    return found[1] if found else ""


def source(variant: Variant) -> ASTSource:
    """The compiler's input for ``variant``."""
    names = variant.kernel.arg_names
    constants = {(i,): variant.constants[n] for i, n in enumerate(names) if n in variant.constants}
    types = {n: "constexpr" if n in variant.constants else variant.signature[n] for n in names}
    divisible = [n for n in names if types[n].startswith("*") or (n in variant.divisible and types[n] != "constexpr")]
    attributes = {(names.index(n),): [["tt.divisibility", 16]] for n in divisible}
    return ASTSource(fn=variant.kernel, signature=types, constexprs=constants, attrs=attributes)


def _dump(option: str, cubin: Path) -> str:
    run = subprocess.run([_CUOBJDUMP, option, cubin], capture_output=True, text=True, check=True)
    return run.stdout + run.stderr


def main() -> None:
    text = README.read_text()
    text = text.replace(f"| kernel ({compiler_in_readme(text)}) |", f"| kernel ({COMPILER}) |")
    start, end = table(text)
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(variant, read(variant, 90, Path(folder))) for variant in variants_in_readme()]
    README.write_text(text[:start] + "\n".join(rows) + text[end:])


if __name__ == "__main__":
    main()
