"""Floating-point instructions of PTX to C statements."""

from __future__ import annotations

from tests.ptx.integers import COMPARISONS, compare
from tests.ptx.operands import FLOATS, Operands
from tests.ptx.parse import BITS, Instruction, Unsupported

OPCODES = ("ex2", "lg2", "sqrt", "rsqrt", "rcp", "sin", "cos", "tanh", "testp", "copysign", "fma")
_HALF = {
    "add": "%s + %s",
    "sub": "%s - %s",
    "mul": "%s * %s",
    "neg": "-%s",
    "abs": "fabsf(%s)",
    "fma": "fmaf(%s, %s, %s)",
    "min": "fmin_(%s, %s)",
    "max": "fmax_(%s, %s)",
}
_PACKED = {"f16x2": "ff16(%s)", "bf16x2": "fbf16(%s)"}  # two numbers in a 32-bit register
_ROUND = {"rni": "rint", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}
# Modifiers that ``emit`` knows.
MODIFIERS = {"rn", "rz", "rm", "rp", "ftz", "sat", "NaN", "full", "approx", *_ROUND, *BITS}
_TESTS = {"finite": "isfinite(%s)", "infinite": "isinf(%s)", "notanumber": "isnan(%s)", "number": "!isnan(%s)"}
TESTED = {*_TESTS, *COMPARISONS, *(f"{name}u" for name in COMPARISONS), "num", "nan", "and", "or", "xor"}
_PRECISE = {"sqrt": ("sqrtf(%s)", "sqrt(%s)"), "rcp": ("1.0f / %s", "1.0 / %s")}
_APPROXIMATE = {
    "ex2": "ex2",
    "lg2": "lg2",
    "sqrt": "sqrt_a",
    "rsqrt": "rsqrt_a",
    "rcp": "rcp_a",
    "sin": "sin_a",
    "cos": "cos_a",
    "tanh": "tanh_a",
}


def is_float(i: Instruction) -> bool:
    """Whether ``emit`` takes the instruction."""
    arithmetic = i.opcode in (*_HALF, "mad", "div", "setp") and i.type in (*FLOATS, "f32x2")
    packed = i.opcode in ("abs", "neg", "setp") and i.type in _PACKED
    return arithmetic or packed or i.opcode in OPCODES or _converts(i)


def _converts(i: Instruction) -> bool:
    return i.opcode == "cvt" and (i.type in FLOATS or i.parts[-2] in (*FLOATS, "bf16x2", "f16x2"))


class Products:
    """Multiplications whose result an addition may take unrounded: ptxas may contract them."""

    def __init__(self) -> None:
        self.count = 0  # additions that could be contracted
        self._factors: dict[str, tuple[str, str, set[str]]] = {}  # register: x, y, the registers of x and y
        self._latest: dict[str, tuple[str, str, set[str]]] = {}

    def clear(self) -> None:
        self._factors.clear()

    def multiplied(self, register: str, x: str, y: str, sources: set[str]) -> None:
        """A multiplication, to be kept once its result is ``written``."""
        if register not in sources:
            self._latest[register] = (x, y, sources)

    def written(self, registers: list[str]) -> None:
        """An instruction wrote these registers: forget the products in them, and the products of their old values."""
        for register in registers:
            kept = ((name, x) for name, x in self._factors.items() if name != register and register not in x[2])
            self._factors = dict(kept)
        self._factors |= self._latest
        self._latest.clear()

    def contracted(self, i: Instruction, k: int) -> tuple[str, str] | None:
        """The factors of operand ``k``, if it is a product."""
        found = self._factors.get(i.operands[k])
        return (found[0], found[1]) if found else None


def emit(r: Operands, i: Instruction, products: Products) -> str:
    """The C statement of ``i``."""
    op, t, o = i.opcode, i.type, i.operands
    flush = "ftz" in i.modifiers and t == "f32"

    def x(k: int) -> str:
        return f"FZ({r.value(o[k], t)})" if flush else r.value(o[k], t)

    def result(value: str) -> str:
        value = f"FZ({value})" if flush else value
        if "sat" in i.modifiers:
            value = f"fmin_(fmax_({value}, 0.0f), 1.0f)"
        return r.assign(o[0], value, t)

    if op == "cvt":
        return _convert(r, i)
    if t in _PACKED and op in ("abs", "neg"):  # sign bits
        x2 = r.bits(o[1], 32)
        return r.assign(o[0], f"{x2} & 0x7fff7fffu" if op == "abs" else f"{x2} ^ 0x80008000u", "b32")
    if op == "setp":
        return _compare_packed(r, i) if t in _PACKED else _compare(r, i, flush)
    if t == "f32x2" and op in ("add", "sub", "mul", "fma") and i.modifiers <= {"rn"}:
        return _pairs(r, i)
    if t not in FLOATS:
        raise Unsupported(f"line {i.line}: {i.text}")
    if op == "testp":
        return r.assign(o[0], _TESTS[i.parts[1]] % x(1), "pred")
    if op == "copysign":
        return result(f"copysign{'f' if t == 'f32' else ''}({x(2)}, {x(1)})")
    if t in ("f16", "bf16"):
        return r.assign(o[0], _HALF[op] % tuple(x(k) for k in range(1, len(o))), t)
    if i.modifiers & {"rz", "rm", "rp"}:
        raise Unsupported(f"line {i.line}: {i.text}")
    single = t == "f32"
    if op in _APPROXIMATE:
        if op in _PRECISE and "rn" in i.modifiers:
            return result(_PRECISE[op][not single] % x(1))
        if not single:
            raise Unsupported(f"line {i.line}: {i.text}")
        return result(f"{_APPROXIMATE[op]}({x(1)})")
    if op in ("abs", "neg"):
        return result(f"fabs{'f' if single else ''}({x(1)})" if op == "abs" else f"-{x(1)}")
    if op in ("fma", "mad"):
        return result(f"fma{'f' if single else ''}({x(1)}, {x(2)}, {x(3)})")
    if op in ("min", "max"):
        return result(f"{'f' if single else 'd'}{op}{'n' if 'NaN' in i.modifiers else '_'}({x(1)}, {x(2)})")
    if op == "div":
        rounded = not i.modifiers & {"full", "approx"}
        return result(f"{x(1)} / {x(2)}" if rounded else f"div_a({x(1)}, {x(2)})")
    return result(_add_or_multiply(r, i, x, products))


def _pairs(r: Operands, i: Instruction) -> str:
    """Two float32 numbers in a 64-bit register (sm_100)."""
    values = [r.bits(operand, 64) for operand in i.operands[1:]]
    low, high = (
        f"B({_HALF[i.opcode] % tuple(f'F((uint32_t)({value} >> {shift}))' for value in values)})" for shift in (0, 32)
    )
    return r.assign(i.operands[0], f"(uint64_t){high} << 32 | {low}", "b64")


def _add_or_multiply(r: Operands, i: Instruction, x, products: Products) -> str:
    op, o = i.opcode, i.operands
    value = f"{x(1)} {({'add': '+', 'sub': '-', 'mul': '*'})[op]} {x(2)}"
    if "rn" in i.modifiers or i.guard:  # an explicit rounding forbids contraction
        return value
    if op == "mul":
        products.multiplied(o[0], x(1), x(2), {*r.names(o[1]), *r.names(o[2])})
        return value
    fma = "fmaf" if i.type == "f32" else "fma"
    for k, other in ((1, 2), (2, 1)):
        factors = products.contracted(i, k)
        if factors and "sat" not in i.modifiers:
            products.count += 1
            first = "-" if op == "sub" and k == 2 else ""
            last = "-" if op == "sub" and k == 1 else ""
            contracted = f"{fma}({first}{factors[0]}, {factors[1]}, {last}{x(other)})"
            return f"(CONTRACT ? (J->contracted++, {contracted}) : ({value}))"
    return value


def _compare_packed(r: Operands, i: Instruction) -> str:
    """One predicate for the low numbers, one for the high ones."""
    if i.parts[1] not in COMPARISONS or len(i.parts) > 3:
        raise Unsupported(f"line {i.line}: {i.text}")
    sets = []
    for shift, predicate in zip((0, 16), i.operands[0].split("|"), strict=True):
        a, b = (_PACKED[i.type] % f"(uint16_t)({r.bits(operand, 32)} >> {shift})" for operand in i.operands[1:])
        test = f"{a} {COMPARISONS[i.parts[1]]} {b}"
        # "ne" is false for NaN, unlike C's
        sets.append(r.assign(predicate, f"({test}) && !isnan({a}) && !isnan({b})", "pred"))
    return "{ " + " ".join(sets) + " }"


def _compare(r: Operands, i: Instruction, flush: bool) -> str:
    name = i.parts[1]
    if name in ("num", "nan"):
        test = "(a_ == a_ && b_ == b_)" if name == "num" else "(a_ != a_ || b_ != b_)"
    elif name == "ne":  # false where one is NaN
        test = "(a_ < b_ || a_ > b_)"
    elif name not in COMPARISONS:  # "ltu" and the like: true where one is NaN
        test = f"(!(a_ == a_ && b_ == b_) || a_ {COMPARISONS[name[:-1]]} b_)"
    else:
        test = f"(a_ {COMPARISONS[name]} b_)"
    return compare(r, i, "double" if i.type == "f64" else "float", test, flush)


def _convert(r: Operands, i: Instruction) -> str:
    to, source, o = i.parts[-2], i.parts[-1], i.operands
    rounding = next((m for m in i.parts[1:-2] if m in ("rn", "rz", "rm", "rp", *_ROUND)), None)
    if i.modifiers & {"relu", "satfinite"}:
        raise Unsupported(f"line {i.line}: {i.text}")
    if to in ("bf16x2", "f16x2"):
        half = to.removesuffix("x2") + ("z" if rounding == "rz" else "")
        return r.assign(
            o[0], f"(uint32_t){half}({r.value(o[1], source)}) << 16 | {half}({r.value(o[2], source)})", "b32"
        )
    x = r.value(o[1], source)
    if "ftz" in i.modifiers and source == "f32":
        x = f"FZ({x})"
    if to not in FLOATS:  # a fault is reported for a value out of range
        whole = f"{to.upper()}({_ROUND[rounding or '']}((double){x}))"
        return f"{{ enum {{ LINE = {i.line} }}; {r.assign(o[0], whole, to)} }}"
    if source not in FLOATS:
        if rounding not in (None, "rn"):
            raise Unsupported(f"line {i.line}: {i.text}")
        return r.assign(o[0], f"({'double' if to == 'f64' else 'float'}){x}", to)
    if rounding in _ROUND:
        if to != source:
            raise Unsupported(f"line {i.line}: {i.text}")
        return r.assign(o[0], f"{_ROUND[rounding]}{'f' if source == 'f32' else ''}({x})", to)
    if to in ("f16", "bf16"):
        if source == "f64":
            raise Unsupported(f"line {i.line}: {i.text}")
        return r.assign(o[0], f"{to}{'z' if rounding == 'rz' else ''}({x})", "b16")
    if to == "f64":
        return r.assign(o[0], f"(double)({x})", to)
    if rounding not in (None, "rn"):
        raise Unsupported(f"line {i.line}: {i.text}")
    value = f"fmin_(fmax_((float)({x}), 0.0f), 1.0f)" if "sat" in i.modifiers else f"(float)({x})"
    return r.assign(o[0], f"FZ({value})" if "ftz" in i.modifiers else value, to)
