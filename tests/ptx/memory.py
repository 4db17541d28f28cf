"""Loads and stores of PTX to C statements. The runtime checks every access."""

from __future__ import annotations

import re

from tests.ptx.operands import C_TYPE, WORD, Operands
from tests.ptx.parse import BITS, Instruction, Unsupported, split_operands

OPCODES = ("ld", "st", "atom", "cvta", "membar", "fence")
# Modifiers that ``emit`` knows.
MODIFIERS = {"global", "shared", "shared::cta", "param", "to", "v2", "v4", "add"}


def emit(r: Operands, i: Instruction, slots: dict[str, int]) -> str:
    """The C statement of ``i``. ``slots``: position of each parameter, 8 bytes each."""
    if i.opcode in ("membar", "fence"):
        return ";"
    if i.opcode == "cvta":
        return r.assign(i.operands[0], r.bits(i.operands[1], 64), "b64")
    if i.parts[1] == "param":
        return _parameter(r, i, slots)
    space = i.parts[1].partition(":")[0]
    if space not in ("global", "shared"):
        raise Unsupported(f"line {i.line}: {i.text}")
    if i.opcode == "atom":
        if (space, *i.parts[2:]) != ("shared", "add", "u32"):
            raise Unsupported(f"line {i.line}: {i.text}")
        value = f"sadd({r.address(i.operands[1])}, {r.bits(i.operands[2], 32)}, {i.line}, tid)"
        return r.assign(i.operands[0], value, "u32")
    load = i.opcode == "ld"
    address, values = (i.operands[1], i.operands[0]) if load else i.operands[:2]
    registers = split_operands(values[1:-1]) if values.startswith("{") else [values]
    count = next((int(part[1:]) for part in i.parts if re.fullmatch(r"v\d", part)), 1)
    if len(registers) != count:
        raise Unsupported(f"line {i.line}: {i.text}")
    width = BITS[i.type] // 8
    size, at = width * count, r.address(address)
    if load:
        type_ = i.type if i.type in C_TYPE else f"b{BITS[i.type]}"
        read = (
            f"memcpy(x_, gload({at}, {size}, {i.line}, tid), {size});"
            if space == "global"
            else f"sload({at}, x_, {size}, {i.line}, tid);"
        )
        sets = " ".join(
            f"{{ {C_TYPE[type_]} y_; memcpy(&y_, x_ + {k * width}, {width}); {r.assign(register, 'y_', type_)} }}"
            for k, register in enumerate(registers)
            if register != "_"
        )
        return f"{{ uint8_t x_[{size}]; {read} {sets} }}"
    fills = " ".join(
        f"{{ {WORD[BITS[i.type]]} y_ = {r.bits(x, BITS[i.type])}; memcpy(x_ + {k * width}, &y_, {width}); }}"
        for k, x in enumerate(registers)
    )
    store = "gstore" if space == "global" else "sstore"
    return f"{{ uint8_t x_[{size}]; {fills} {store}({at}, x_, {size}, {i.line}, tid); }}"


def _parameter(r: Operands, i: Instruction, slots: dict[str, int]) -> str:
    found = re.fullmatch(r"\[\s*([\w$]+)\s*(?:\+\s*(\d+))?\s*\]", i.operands[1])
    if not found or i.operands[0].startswith("{"):
        raise Unsupported(f"line {i.line}: {i.text}")
    at = 8 * slots[found[1]] + int(found[2] or 0)
    type_ = i.type if i.type in C_TYPE else f"b{BITS[i.type]}"
    value = r.assign(i.operands[0], "x_", type_)
    return f"{{ {C_TYPE[type_]} x_; memcpy(&x_, PARAM + {at}, {BITS[i.type] // 8}); {value} }}"
