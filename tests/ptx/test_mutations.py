"""Errors are detected: each kernel here has one error in its PTX."""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest

from fastreg.kernels.registry import operations
from tests.ptx.emulator import Emulator
from tests.ptx.launcher import Poisoned, emulating


class Mutation(NamedTuple):
    how: str
    operation: str  # row of the registry
    pattern: str
    replacement: str
    which: int | None = None  # of the places that match; None: all

    def __call__(self, ptx: str) -> str:
        if self.which is None:
            return re.sub(self.pattern, self.replacement, ptx, flags=re.M)
        found = [*re.finditer(self.pattern, ptx, re.M)]
        if not found:
            return ptx
        place = found[self.which if self.which < len(found) else -1]
        return ptx[: place.start()] + place.expand(self.replacement) + ptx[place.end() :]


BARRIER, LAST = r"^\s*bar\.sync.*$", 10**6
PERMUTE = r"prmt\.b32 (%r\d+), (%r\d+), (%r\d+), (%r\d+)"
MUTATIONS = (
    Mutation("no barriers", "mixed_cross_entropy_1000", BARRIER, ""),
    Mutation("first barrier missing", "mixed_cross_entropy_1000", BARRIER, "", 0),
    Mutation("last barrier missing", "jpeg_round_trip", BARRIER, "", LAST),
    Mutation("stores without guards", "fgsm_step", r"@%p\d+ st\.global", "st.global"),
    Mutation("loads without guards", "color_jitter", r"@%p\d+ ld\.global", "ld.global"),
    Mutation("bytes of a word reordered", "augment_flip", PERMUTE, r"prmt.b32 \1, \3, \2, \4", 0),
    Mutation(
        "shuffle with another lane", "mixed_cross_entropy_1000",
        r"(shfl\.sync\.bfly\.b32\s+%r\d+, %r\d+), 1,", r"\1, 2,", 0,
    ),
    Mutation(
        "shared load four bytes on", "augment_all",
        r"ld\.shared\.b32(\s+%r\d+), \[(%r\d+)\]", r"ld.shared.b32\1, [\2+4]", 0,
    ),
    Mutation("first barrier missing", "auto_augment_nearest", BARRIER, "", 0),
    Mutation("no barriers", "auto_augment_nearest", BARRIER, ""),
    Mutation("zeros not written", "contrast", r"mov\.u16 %rs\d+, 0x0;", ""),
    Mutation("store eight bytes on", "fgsm_step", r"(st\.global\.\w+(?:\.\w+)? \[ %rd\d+ \+ )0", r"\g<1>8", 0),
    Mutation(
        "rows of a matrix reordered", "jpeg_round_trip",
        r"(stmatrix\S+\s+\[%r\d+\]), \{(%r\d+), (%r\d+)", r"\1, {\3, \2", 0,
    ),
)  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.operation}: {mutation.how}")
def test_a_mutation_is_noticed(mutation, emulator):
    op = next(op for op in operations() if op.name == mutation.operation)
    changed, spoiled = _mutant(mutation, emulator.target.arch)
    arguments = op.example("cpu", small=True)
    expected = op.reference(**arguments)
    noticed: list[str] = []
    try:
        with emulating(spoiled), Poisoned(0xA5):
            result = op.triton(**arguments)
        pairs = zip(*(x if isinstance(x, tuple) else (x,) for x in (result, expected)), strict=True)
        shares = (((a.double() - b.double()).abs().nan_to_num(9) > op.tolerance).double().mean() for a, b in pairs)
        if (share := max(shares)) > op.rare:
            noticed.append(f"{share:.1%} of values")
    except Exception as error:  # an address far away, a translation that fails
        noticed.append(f"{type(error).__name__}: {error}")
    noticed += spoiled.report.errors()
    assert any(changed), "the pattern matches nothing in the PTX"
    assert noticed


def _mutant(mutation: Mutation, capability: int) -> tuple[list[bool], Emulator]:
    """The emulator of the changed PTX, and for each kernel whether it was changed."""
    changed: list[bool] = []

    def mutate(ptx: str) -> str:
        new = mutation(ptx)
        changed.append(new != ptx)
        return new

    return changed, Emulator(capability, mutate)


def test_the_unchanged_kernels_pass(emulator):
    """The kernels are right without the mutations."""
    for name in sorted({mutation.operation for mutation in MUTATIONS}):
        op = next(op for op in operations() if op.name == name)
        spoiled = Emulator(emulator.target.arch, lambda ptx: ptx)
        with emulating(spoiled), Poisoned(0xA5):
            op.triton(**op.example("cpu", small=True))
        assert not spoiled.report.errors(), name
