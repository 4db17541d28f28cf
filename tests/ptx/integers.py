"""Integer, bit and predicate instructions of PTX to C statements."""

from __future__ import annotations

from tests.ptx.operands import C_TYPE, WORD, Operands
from tests.ptx.parse import BITS, Instruction, Unsupported, split_operands

OPCODES = (
    *("mov", "add", "sub", "mul", "mad", "div", "rem", "min", "max", "abs", "neg", "and", "or", "xor", "not", "lop3"),
    *("shl", "shr", "shf", "bfe", "bfi", "prmt", "popc", "clz", "selp", "setp", "cvt"),
)
COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
COMPARISONS |= {"lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
# Modifiers that ``emit`` knows.
MODIFIERS = {
    **{op: {"lo", "hi", "wide"} for op in ("mul", "mad")},
    **{op: {"relu"} for op in ("min", "max")},
    "setp": {*COMPARISONS, "and", "or", "xor"},
    "shf": {"l", "r", "wrap", "clamp"},
    "cvt": {"sat", *BITS},
}
_SIGNS = {"add": "+", "sub": "-", "and": "&", "or": "|", "xor": "^", "min": "<", "max": ">"}


def emit(r: Operands, i: Instruction) -> str:
    """The C statement of ``i``. Raises Unsupported for an instruction that is not in the tables."""
    op, t, o = i.opcode, i.type, i.operands
    if op == "mov":
        return _move(r, i)
    if op in ("mul", "mad"):
        return _multiply(r, i)
    if op == "setp":
        return compare(r, i, C_TYPE[t], f"(a_ {COMPARISONS[i.parts[1]]} b_)")
    if op == "cvt":
        return _convert(r, i)
    if op in ("add", "sub") and t in ("s16x2", "u16x2"):
        a, b = r.bits(o[1], 32), r.bits(o[2], 32)
        high, low = f"({a} >> 16) {_SIGNS[op]} ({b} >> 16)", f"({a} {_SIGNS[op]} {b})"
        return r.assign(o[0], f"(({high}) << 16) | ({low} & 0xffffu)", "b32")
    if op in ("add", "sub"):
        return r.assign(o[0], f"({WORD[BITS[t]]})({r.bits(o[1], BITS[t])} {_SIGNS[op]} {r.bits(o[2], BITS[t])})", t)
    if op in ("div", "rem"):
        return r.assign(o[0], f"{op}_{t}({r.value(o[1], t)}, {r.value(o[2], t)}, {i.line}, tid)", t)
    if op in ("min", "max"):
        chosen = f"(a_ {_SIGNS[op]} b_ ? a_ : b_)"
        if "relu" in i.modifiers:
            chosen = f"{chosen} < 0 ? 0 : {chosen}"
        return f"{{ {C_TYPE[t]} a_ = {r.value(o[1], t)}, b_ = {r.value(o[2], t)}; {r.assign(o[0], chosen, t)} }}"
    if op == "abs":
        return f"{{ {C_TYPE[t]} a_ = {r.value(o[1], t)}; {r.assign(o[0], f'a_ < 0 ? -({WORD[BITS[t]]})a_ : a_', t)} }}"
    if op == "neg":
        return r.assign(o[0], f"-({WORD[BITS[t]]}){r.value(o[1], t)}", t)
    if t == "pred":
        if op == "not":
            return r.assign(o[0], f"!{r.truth(o[1])}", t)
        return r.assign(o[0], f"{r.truth(o[1])} {_SIGNS[op]} {r.truth(o[2])}", t)
    if op in ("and", "or", "xor"):
        return r.assign(o[0], f"{r.bits(o[1], BITS[t])} {_SIGNS[op]} {r.bits(o[2], BITS[t])}", t)
    if op == "not":
        return r.assign(o[0], f"~{r.bits(o[1], BITS[t])}", t)
    if op == "selp":
        return r.assign(o[0], f"{r.truth(o[3])} ? {r.bits(o[1], BITS[t])} : {r.bits(o[2], BITS[t])}", f"b{BITS[t]}")
    return _bits(r, i)


def compare(r: Operands, i: Instruction, c_type: str, test: str, flush: bool = False) -> str:
    """setp: ``test`` of a_ and b_, combined with a predicate where the instruction says so."""
    first, _, second = i.operands[0].partition("|")
    a, b = (f"FZ({r.value(o, i.type)})" if flush else r.value(o, i.type) for o in i.operands[1:3])
    combined = f" {_SIGNS[i.parts[2]]} {r.truth(i.operands[3])}" if i.parts[2] in ("and", "or", "xor") else ""
    text = f"{{ {c_type} a_ = {a}, b_ = {b}; uint8_t t_ = {test}; {r.assign(first, 't_' + combined, 'pred')}"
    if second:
        text += f" {r.assign(second, '!t_' + combined, 'pred')}"
    return text + " }"


def _move(r: Operands, i: Instruction) -> str:
    t, o = i.type, i.operands
    word = WORD[BITS[t]]
    if o[0].startswith("{"):
        parts = split_operands(o[0][1:-1])
        bits = BITS[t] // len(parts)
        sets = (r.assign(part, f"x_ >> {bits * k}", f"b{bits}") for k, part in enumerate(parts))
        return f"{{ {word} x_ = {r.bits(o[1], BITS[t])}; {' '.join(sets)} }}"
    if o[1].startswith("{"):
        parts = split_operands(o[1][1:-1])
        bits = BITS[t] // len(parts)
        joined = " | ".join(f"(({word}){r.bits(part, bits)} << {bits * k})" for k, part in enumerate(parts))
        return r.assign(o[0], joined, f"b{BITS[t]}")
    if t == "pred":
        return r.assign(o[0], f"({r.bits(o[1], 8)}) != 0", "pred")
    return r.assign(o[0], r.bits(o[1], BITS[t]), f"b{BITS[t]}")


def _multiply(r: Operands, i: Instruction) -> str:
    t, o, bits = i.type, i.operands, BITS[i.type]
    if "wide" in i.modifiers:
        wide = f"{t[0]}{bits * 2}"
        value = f"({C_TYPE[wide]}){r.value(o[1], t)} * ({C_TYPE[wide]}){r.value(o[2], t)}"
        if i.opcode == "mad":
            value = f"({WORD[bits * 2]})({value}) + {r.bits(o[3], bits * 2)}"
        return r.assign(o[0], value, wide)
    if "hi" in i.modifiers:
        signed = "__int128" if t[0] == "s" else "unsigned __int128"
        big = signed if bits == 64 else C_TYPE[f"{t[0]}{bits * 2}"]
        value = f"({C_TYPE[t]})((({big}){r.value(o[1], t)} * ({big}){r.value(o[2], t)}) >> {bits})"
    else:
        up = "uint32_t" if bits == 16 else WORD[bits]  # C would promote uint16_t to a signed int
        value = f"({WORD[bits]})(({up}){r.bits(o[1], bits)} * ({up}){r.bits(o[2], bits)})"
    if i.opcode == "mad":
        value = f"({WORD[bits]})({value}) + {r.bits(o[3], bits)}"
    return r.assign(o[0], value, t)


def _bits(r: Operands, i: Instruction) -> str:
    op, t, o, bits = i.opcode, i.type, i.operands, BITS[i.type]
    if op == "lop3":
        a, b, c = (r.bits(x, 32) for x in o[1:4])
        rows = (k for k in range(8) if int(o[4], 0) >> k & 1)
        sides = ((2, a), (1, b), (0, c))
        terms = (" & ".join(f"{'' if k >> s & 1 else '~'}({x})" for s, x in sides) for k in rows)
        return r.assign(o[0], " | ".join(f"({term})" for term in terms) or "0", "b32")
    if op == "shl":
        return r.assign(o[0], f"shl{bits}({r.bits(o[1], bits)}, {r.bits(o[2], 32)})", t)
    if op == "shr":
        name = "sar" if t[0] == "s" else "shr"
        return r.assign(o[0], f"{name}{bits}({r.value(o[1], t)}, {r.bits(o[2], 32)})", t)
    if op == "shf":
        a, b, n = (r.bits(x, 32) for x in o[1:4])
        n = f"({n} & 31)" if "wrap" in i.modifiers else f"({n} > 32 ? 32 : {n})"
        both = f"((uint64_t){b} << 32 | {a})"
        return r.assign(o[0], f"({both} << {n}) >> 32" if "l" in i.modifiers else f"{both} >> {n}", "b32")
    if op == "bfe":
        return r.assign(o[0], f"bfe_{t}({r.bits(o[1], bits)}, {r.bits(o[2], 32)}, {r.bits(o[3], 32)})", t)
    if op == "bfi":
        a, b, c, n = (r.bits(x, 32) for x in o[1:5])
        mask = "c_ > 31 || !n_ ? 0 : (n_ > 31 ? ~0u : (1u << n_) - 1) << c_"
        inserted = r.assign(o[0], f"({b} & ~m_) | (m_ ? ({a} << c_) & m_ : 0)", "b32")
        return f"{{ uint32_t c_ = {c} & 255, n_ = {n} & 255; uint32_t m_ = {mask}; {inserted} }}"
    if op == "prmt" and t == "b32":
        return r.assign(o[0], f"prmt({', '.join(r.bits(x, 32) for x in o[1:4])})", "b32")
    if op == "popc":
        return r.assign(o[0], f"__builtin_popcountll({r.bits(o[1], bits)})", "u32")
    if op == "clz":
        counted = r.assign(o[0], f"a_ ? __builtin_clzll(a_) - {64 - bits} : {bits}", "u32")
        return f"{{ {WORD[bits]} a_ = {r.bits(o[1], bits)}; {counted} }}"
    raise Unsupported(f"line {i.line}: {i.text}")


def _convert(r: Operands, i: Instruction) -> str:
    to, source = i.parts[-2:]
    x = r.value(i.operands[1], source)
    if "sat" not in i.modifiers:
        return r.assign(i.operands[0], x, to)
    bits = BITS[to]
    low, high = (0, 2**bits - 1) if to[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    clamped = f"x_ < {low}ll ? {low}ll : x_ > {high}ll ? {high}ll : x_"
    return f"{{ int64_t x_ = {x}; {r.assign(i.operands[0], clamped, to)} }}"
