"""The machine code of every registered kernel, compiled for sm_80, sm_90 and sm_100 without a GPU.

Every variant is compiled for sm_90, the first variant of each kernel for the other two.
"""

from __future__ import annotations

import pytest
from triton import knobs

from fastreg.kernels.dispatch import INTERPRETED
from fastreg.kernels.registry import Variant, operations
from tests.kernels import aot
from tests.kernels.aot import Code, read

VARIANTS = [variant for op in operations() for variant in op.aot]
FIRST = list({variant.kernel: variant for variant in reversed(VARIANTS)}.values())
CASES = [(90, v) for v in VARIANTS]
CASES += [pytest.param(capability, v, marks=pytest.mark.slow) for capability in (80, 100) for v in FIRST]


# the losses have a tolerance, and need the hardware's exponential
APPROXIMATE = tuple(
    f"fastreg.kernels.cross_entropy.{name}" for name in ("forward", "backward", "binary_kernels", "weighted_kernels")
)
BYTES = "augment_flip, to bytes"  # a thread stores its eight values as eight bytes
HISTOGRAMS = "fastreg.kernels.auto_augmentation.prepare"  # whole numbers add up in any order
CODES: dict[tuple[int, str], Code] = {}  # codes read so far, for the test of the README's table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of Triton's cache and of the object files."""
    path = tmp_path_factory.mktemp("aot")
    with knobs.cache.scope():
        knobs.cache.dir = str(path / "cache")
        yield path


def _stored(code: Code, width: str) -> int:
    return sum(n for name, n in code.memory.items() if name.startswith("st.global") and name.endswith(width))


def _check(variant: Variant, code: Code) -> None:
    assert code.stack == code.local == 0, "spills"
    assert not any(".local" in name for name in code.memory), "local memory"
    atomics = {name for name in code.memory if name.startswith(("red", "atom"))}
    counts = {"atom.shared.add.u32"} if variant.kernel.__module__ == HISTOGRAMS else set()
    assert atomics <= counts, "atomics: sums in no fixed order"
    if variant.kernel.__module__ not in APPROXIMATE:
        assert not code.approximate, "not correctly rounded: a level may differ from the reference's"
    if variant.kind in ("stream", "ragged"):
        assert sum(code.memory[f"ld.global.{width}"] for width in ("v4.b32", "v2.b32", "b32", "v2.b64")) > 0
        assert code.memory["ld.global.b8"] <= variant.flags, "byte loads"
    if variant.kind == "stream":
        assert _stored(code, "b8") == _stored(code, "b16") == 0, "stores narrower than a word"
    if "out" in variant.kernel.arg_names and variant.kind in ("stream", "ragged"):
        widest = "v2" if variant.label == BYTES else "v4"
        assert code.memory[f"st.global.{widest}.b32"] > 0, "no vector stores"


@pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET=1 replaces the compiler")
@pytest.mark.parametrize(
    ("capability", "variant"), CASES, ids=lambda x: x.label if isinstance(x, Variant) else f"sm_{x}"
)
def test_machine_code(capability, variant, folder):
    code = CODES[capability, variant.label] = read(variant, capability, folder)
    print(f"| sm_{capability} {aot.row(variant, code)}")
    _check(variant, code)


@pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET=1 replaces the compiler")
def test_the_table_in_the_readme_is_current(folder):
    text = aot.README.read_text()
    if aot.compiler_in_readme(text) != aot.COMPILER:
        pytest.skip(f"the table is of {aot.compiler_in_readme(text)}, the compiler here is {aot.COMPILER}")
    codes = [(v, CODES.get((90, v.label)) or read(v, 90, folder)) for v in aot.variants_in_readme()]
    start, end = aot.table(text)
    now = [aot.row(variant, code) for variant, code in codes]
    assert text[start:end].split("\n") == now, "run python -m tests.kernels.aot and review the change"
