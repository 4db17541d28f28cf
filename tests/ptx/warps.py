"""Instructions that the lanes of a warp do together, to C functions over the warp."""

from __future__ import annotations

from tests.ptx.operands import WORD, Operands, split_address
from tests.ptx.parse import Instruction, Unsupported, split_operands

OPCODES = ("bar", "barrier", "shfl", "redux", "ldmatrix", "stmatrix", "vote", "activemask", "elect")
_LANES = "for (uint32_t l = 0; l < 32; l++)"
_REDUCE = {
    "add": "r += x",
    "min": "r = x < r ? x : r",
    "max": "r = x > r ? x : r",
    "and": "r &= x",
    "or": "r |= x",
    "xor": "r ^= x",
}


def emit(r: Operands, i: Instruction, index: int) -> str:
    """The C function ``run<index>``: it executes ``i`` for the lanes of ``mask``."""
    body = {"bar": _barrier, "barrier": _barrier, "shfl": _shuffle, "redux": _reduce}
    body |= {"ldmatrix": _matrix, "stmatrix": _matrix, "vote": _vote}
    if i.opcode not in body or (i.guard and body[i.opcode] is not _barrier):
        raise Unsupported(f"line {i.line}: {i.text}")
    return "\n".join(
        (
            f"static void run{index}(struct Warp *w, uint32_t mask) {{",
            *body[i.opcode](r, i),
            f"  {_LANES} if (mask >> l & 1) w->pc[l] = {index + 1};",
            "}",
        )
    )


def _at(r: Operands, operand: str, lane: str = "l") -> str:
    """A 32-bit operand of one lane."""
    operand = operand.strip()
    if operand in r.registers:
        return f"(({WORD[32]})w->{r.variable(operand)}[{lane}])"
    return r.bits(operand, 32)


def _missing(i: Instruction) -> str:
    return f"  if (mask != 0xffffffffu) fault(LANES_MISSING, {i.line}, w->first, mask);"


def _barrier(r: Operands, i: Instruction) -> list[str]:
    return [] if "warp" in i.parts else ["  w->at_barrier |= mask;"]


def _shuffle(r: Operands, i: Instruction) -> list[str]:
    o = i.operands
    mode = next(part for part in i.parts if part in ("bfly", "idx", "up", "down"))
    result, _, valid = o[0].partition("|")
    source = {"bfly": "l ^ b", "idx": "(l & seg) | (b & ~seg & 31)", "up": "(int)l - (int)b", "down": "l + b"}[mode]
    inside = "j >= (int)edge" if mode == "up" else "j <= (int)edge"
    stores = [f"    w->{r.variable(result)}[l] = out[l];"] if result != "_" else []
    stores += [f"    w->{r.variable(valid)}[l] = ok[l];"] if valid else []
    return [
        _missing(i),
        "  uint32_t out[32]; uint8_t ok[32];",
        f"  {_LANES} {{ const uint32_t tid = w->first + l; (void)tid;",
        f"    uint32_t b = {_at(r, o[2])} & 31, c = {_at(r, o[3])}, seg = (c >> 8) & 31;",
        "    uint32_t edge = (l & seg) | (c & ~seg & 31);",
        f"    int j = {source}; ok[l] = {inside}; if (!ok[l]) j = l;",
        f"    out[l] = {_at(r, o[1], 'j & 31')};",
        "    if (!(mask >> (j & 31) & 1) && (mask >> l & 1))",
        f"      fault(LANES_MISSING, {i.line}, w->first + l, mask);",
        "  }",
        f"  {_LANES} if (mask >> l & 1) {{",
        *stores,
        "  }",
    ]


def _reduce(r: Operands, i: Instruction) -> list[str]:
    kind, o = i.parts[2], i.operands
    c_type = "int32_t" if i.type == "s32" and kind != "add" else "uint32_t"
    return [
        _missing(i),
        f"  {c_type} r = 0; int any = 0;",
        f"  {_LANES} if (mask >> l & 1) {{",
        f"    if ({_at(r, o[2])} != mask) fault(LANES_MISSING, {i.line}, w->first + l, mask);",
        f"    {c_type} x = {_at(r, o[1])}; if (!any) {{ r = x; any = 1; }} else {{ {_REDUCE[kind]}; }} }}",
        f"  {_LANES} if (mask >> l & 1) w->{r.variable(o[0])}[l] = (uint32_t)r;",
    ]


def _vote(r: Operands, i: Instruction) -> list[str]:
    """Bit l of the result is the predicate of lane l."""
    result, predicate, members = i.operands
    if "ballot" not in i.parts or int(members, 0) & 0xFFFFFFFF != 0xFFFFFFFF:
        raise Unsupported(f"line {i.line}: {i.text}")
    sign, name = ("!", predicate[1:]) if predicate.startswith("!") else ("", predicate)
    return [
        _missing(i),
        "  uint32_t r = 0;",
        f"  {_LANES} if ((mask >> l & 1) && {sign}w->{r.variable(name)}[l]) r |= 1u << l;",
        f"  {_LANES} if (mask >> l & 1) w->{r.variable(result)}[l] = r;",
    ]


def _matrix(r: Operands, i: Instruction) -> list[str]:
    """ldmatrix and stmatrix: 8 x 8 matrices of 16 bits, whose rows lanes 8 m to 8 m + 7 address."""
    if "m8n8" not in i.parts or "b16" not in i.parts:
        raise Unsupported(f"line {i.line}: {i.text}")
    load = i.opcode == "ldmatrix"
    address, values = (i.operands[1], i.operands[0]) if load else i.operands[:2]
    registers = split_operands(values[1:-1])
    base, offset = split_address(address)
    access = "sload" if load else "sstore"
    rows = [
        f"    for (uint32_t r = 0; r < 8; r++) {{ uint32_t l = m * 8 + r; uint64_t a = {_at(r, base)} + {offset};",
        f"      {access}(a, t[r], 16, {i.line}, w->first + l); }}",
    ]
    if "trans" in i.parts:
        one, two = "&t[r][c * 2]", "&t[r + 1][c * 2]"
        swap = (
            f"uint16_t x, y; memcpy(&x, {one}, 2); memcpy(&y, {two}, 2); g[m][l] = (uint32_t)y << 16 | x;"
            if load
            else f"uint16_t x = g[m][l], y = g[m][l] >> 16; memcpy({one}, &x, 2); memcpy({two}, &y, 2);"
        )
        copy = f"    {_LANES} {{ uint32_t c = l / 4, r = l % 4 * 2; {swap} }}"
    else:
        pair = ("&g[m][l]", "&t[l / 4][l % 4 * 4]")
        to, source = pair if load else pair[::-1]
        copy = f"    {_LANES} memcpy({to}, {source}, 4);"
    variables = ", ".join("w->" + r.variable(register) for register in registers)
    return [
        _missing(i),
        f"  for (uint32_t m = 0; m < {len(registers)}; m++) {{ uint8_t t[8][16];",
        f"    uint32_t *g[{len(registers)}] = {{ {variables} }};",
        *([*rows, copy] if load else [copy, *rows]),
        "  }",
    ]
