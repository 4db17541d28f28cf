"""Operands of PTX instructions as C expressions. A register is an unsigned C variable of its bits."""

from __future__ import annotations

import re

from tests.ptx.parse import BITS, Unsupported

WORD = {8: "uint8_t", 16: "uint16_t", 32: "uint32_t", 64: "uint64_t"}
C_TYPE = {f"{kind}{n}": WORD[n] for kind in "ub" for n in (8, 16, 32, 64)}
C_TYPE |= {f"s{n}": WORD[n].removeprefix("u") for n in (8, 16, 32, 64)} | {"pred": "uint8_t"}
POISON = {8: "(POISON32 & 1)", 16: "POISON16", 32: "POISON32", 64: "POISON64"}
FLOATS = ("f16", "bf16", "f32", "f64")
_FROM_BITS = {"f32": "F(%s)", "f64": "D(%s)", "f16": "ff16(%s)", "bf16": "fbf16(%s)"}
_TO_BITS = {"f32": "B(%s)", "f64": "BD(%s)", "f16": "f16(%s)", "bf16": "bf16(%s)"}
_SPECIAL = {
    "%tid.x": "tid",
    **dict.fromkeys(("%tid.y", "%tid.z"), "0"),
    **{f"%ctaid.{axis}": f"CTA[{k}]" for k, axis in enumerate("xyz")},
    **{f"%nctaid.{axis}": f"J->grid[{k}]" for k, axis in enumerate("xyz")},
    "%ntid.x": "(J->warps * 32)",
    "%laneid": "(tid % 32)",
    "%warpid": "(tid / 32)",
}


class Operands:
    def __init__(self, registers: dict[str, int], shared: set[str]):
        self.registers = registers
        self.shared = shared

    def names(self, operand: str) -> list[str]:
        """The registers that an operand mentions."""
        return [name for name in re.findall(r"%?[A-Za-z_]\w*", operand) if name in self.registers]

    def variable(self, register: str) -> str:
        return "R_" + re.sub(r"\W", "_", register)

    def bits(self, operand: str, bits: int) -> str:
        """The operand's bits, an unsigned C expression."""
        operand = operand.strip()
        if operand in self.registers:
            name = self.variable(operand)
            return name if self.registers[operand] == bits else f"(({WORD[bits]}){name})"
        if constant := re.fullmatch(r"0[fF]([0-9A-Fa-f]{8})|0[dD]([0-9A-Fa-f]{16})", operand):
            return f"0x{constant[1]}u" if constant[1] else f"0x{constant[2]}ull"
        if re.fullmatch(r"-?(0[xX][0-9A-Fa-f]+|\d+)[uU]?", operand):
            return f"(({WORD[bits]}){int(operand.rstrip('uU'), 0) & ((1 << bits) - 1)}ull)"
        if operand in self.shared:  # shared memory begins at 0
            return f"(({WORD[bits]})0)"
        if operand in _SPECIAL:
            return f"(({WORD[bits]}){_SPECIAL[operand]})"
        raise Unsupported(f"operand {operand!r}")

    def value(self, operand: str, type_: str) -> str:
        """The operand as a C value of a PTX type."""
        bits = self.bits(operand, BITS[type_])
        if type_ in _FROM_BITS:
            return _FROM_BITS[type_] % bits
        return f"(({C_TYPE[type_]}){bits})" if type_[0] == "s" else f"({bits})"

    def truth(self, operand: str) -> str:
        """A predicate."""
        if operand.startswith("!"):
            return f"!{self.truth(operand[1:])}"
        return self.variable(operand) if operand in self.registers else f"({int(operand, 0)} != 0)"

    def assign(self, register: str, value: str, type_: str) -> str:
        """Statement: a register takes a C value of a PTX type."""
        if register == "_":
            return ";"
        value = _TO_BITS[type_] % value if type_ in _TO_BITS else f"({C_TYPE[type_]})({value})"
        return f"{self.variable(register)} = ({WORD[self.registers[register]]})({value});"

    def address(self, operand: str) -> str:
        """uint64_t. Shared addresses wrap in 32 bits."""
        base, offset = split_address(operand)
        if self.registers.get(base) == 32:
            return f"((uint64_t)(uint32_t)({self.variable(base)} + (uint32_t)({offset})))"
        return f"({self.bits(base, 64)} + ({offset}ll))"


def split_address(operand: str) -> tuple[str, int]:
    """Base and offset of ``[base + offset]``."""
    found = re.fullmatch(r"\[\s*([^\s+\]]+)\s*(?:\+\s*(-?\w+))?\s*\]", operand)
    if not found:
        raise Unsupported(f"address {operand!r}")
    return found[1], int(found[2] or "0", 0)
