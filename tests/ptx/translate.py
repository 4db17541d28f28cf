"""PTX of one kernel to C: each straight run of instructions becomes a function over the lanes of a warp.

A run ends at a label, a branch, a barrier, or an instruction that lanes do together. Lanes have program counters of
their own; a warp always executes the lowest one, so that diverged lanes meet again.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.ptx import counts, floats, integers, memory, warps
from tests.ptx.operands import POISON, WORD, Operands
from tests.ptx.parse import Instruction, Unsupported, parse

_ENDS = ("bra", "brx", "ret", "exit", "trap")
_NO_RESULT = ("st", "stmatrix", "bar", "barrier", "red", *_ENDS)


@dataclass
class Kernel:
    """A translated kernel."""

    name: str
    parameters: int
    threads: int
    source: str  # C
    places: dict[int, str]  # PTX line: source line
    lines: list[str]
    instructions: int
    contractible: int  # additions of a product


def translate(ptx: str) -> Kernel:
    """The only kernel of ``ptx`` as a C program. Raises Unsupported."""
    return _Translator(ptx).kernel()


class _Translator:
    def __init__(self, ptx: str):
        self.parsed = parse(ptx)
        self.operands = Operands(self.parsed.registers, self.parsed.shared)
        self.slots = {name: k for k, (_, name) in enumerate(self.parsed.parameters)}
        self.products = floats.Products()
        self.runs: list[list[Instruction]] = []
        self.labels: dict[str, int] = {}
        self._split()
        self.saved = self._saved()

    def _split(self) -> None:
        current: list[Instruction] = []

        def close() -> None:
            if current:
                self.runs.append(current.copy())
                current.clear()

        for item in self.parsed.items:
            if isinstance(item, str):
                close()
                self.labels[item] = len(self.runs)
            elif item.opcode in warps.OPCODES:
                close()
                self.runs.append([item])
            else:
                current.append(item)
                if item.opcode in _ENDS:
                    close()
        close()

    def _uses(self, i: Instruction) -> tuple[list[str], list[str]]:
        """Registers read and written."""
        reads, writes = [i.guard] if i.guard else [], []
        for k, operand in enumerate(i.operands):
            (writes if k == 0 and i.opcode not in _NO_RESULT else reads).extend(self.operands.names(operand))
        return reads, writes

    def _saved(self) -> set[str]:
        """Registers that live from one run to another, or from one round of a loop to the next."""
        seen_in: dict[str, set[int]] = {}
        saved: set[str] = set()
        for k, run in enumerate(self.runs):
            together = run[0].opcode in warps.OPCODES
            written: set[str] = set()
            for i in run:
                reads, writes = self._uses(i)
                saved.update(name for name in reads if together or name not in written)
                saved.update(writes if together else ())
                written.update(writes)
                for name in (*reads, *writes):
                    seen_in.setdefault(name, set()).add(k)
        return saved | {name for name, runs in seen_in.items() if len(runs) > 1}

    def _statement(self, i: Instruction) -> str:
        compared = floats.TESTED if i.opcode in ("setp", "testp") else set()
        if floats.is_float(i) and i.modifiers <= floats.MODIFIERS | compared:
            return floats.emit(self.operands, i, self.products)
        if i.opcode in memory.OPCODES and i.modifiers <= memory.MODIFIERS:
            return memory.emit(self.operands, i, self.slots)
        if i.opcode in integers.OPCODES and i.modifiers <= integers.MODIFIERS.get(i.opcode, set()):
            return integers.emit(self.operands, i)
        raise Unsupported(f"line {i.line}: {i.text}")

    def _run(self, index: int, run: list[Instruction]) -> str:
        """The C function of a run. Registers are local variables, loaded from and stored to the warp where they live
        on; the others begin with poison."""
        if run[0].opcode in warps.OPCODES:
            return warps.emit(self.operands, run[0], index)
        loaded, written, used = set(), set(), {}
        for i in run:
            reads, writes = self._uses(i)
            kept = writes if i.guard else []  # a false guard leaves the old value
            loaded.update(name for name in (*reads, *kept) if name not in written)
            written.update(writes)
            used |= dict.fromkeys((*reads, *writes))
        text = [
            f"static void run{index}(struct Warp *w, uint32_t mask) {{",
            "  for (uint32_t l = 0; l < 32; l++) { if (!(mask >> l & 1)) continue; const uint32_t tid = w->first + l;",
        ]
        for name in used:
            c, bits = self.operands.variable(name), self.parsed.registers[name]
            first = f"w->{c}[l]" if name in loaded & self.saved else POISON[bits]
            text.append(f"    {WORD[bits]} {c} = {first};")
        self.products.clear()
        go_on = f"w->pc[l] = {index + 1};"
        for i in run:
            if i.opcode in _ENDS:
                go_on = self._end(i, index)
                continue
            _, writes = self._uses(i)
            body = self._statement(i)
            if i.guard:
                body = f"if ({self._guard(i)}) {{ {body} }}"
            text.append("    " + body)
            self.products.written(writes)
        kept_on = (self.operands.variable(name) for name in used if name in written & self.saved)
        text += [f"    w->{c}[l] = {c};" for c in kept_on]
        return "\n".join((*text, f"    {go_on}", "  }", "}"))

    def _guard(self, i: Instruction) -> str:
        return f"{'!' if i.negated else ''}{self.operands.variable(i.guard or '')}"

    def _end(self, i: Instruction, index: int) -> str:
        if i.opcode == "trap":
            return "fault(ENDLESS, 0, tid, 1); w->pc[l] = END;"
        if i.opcode == "brx":
            if i.guard:
                raise Unsupported(f"line {i.line}: {i.text}")
            targets = ", ".join(str(self.labels[name]) for name in self.parsed.targets[i.operands[1]])
            chosen = self.operands.bits(i.operands[0], 32)
            return f"{{ static const uint16_t to[] = {{ {targets} }}; w->pc[l] = to[{chosen}]; }}"
        target = str(self.labels[i.operands[0]]) if i.opcode == "bra" else "END"
        return f"w->pc[l] = {self._guard(i)} ? {target} : {index + 1};" if i.guard else f"w->pc[l] = {target};"

    def kernel(self) -> Kernel:
        saved = [(self.operands.variable(name), self.parsed.registers[name]) for name in sorted(self.saved)]
        runs = [self._run(k, run) for k, run in enumerate(self.runs)]
        names = ", ".join(f"run{k}" for k in range(len(runs)))
        source = "\n".join(
            (
                '#include "runtime.h"',
                "struct Warp { uint32_t first, at_barrier; uint16_t pc[32];",
                *(f"  {WORD[bits]} {c}[32];" for c, bits in saved),
                "};",
                f"enum {{ END = {len(runs)} }};",
                *runs,
                f"static void (*const RUN[])(struct Warp *, uint32_t) = {{ {names} }};",
                f"static const uint16_t ISSUED[][CLASSES] = {{ {', '.join(map(counts.of_run, self.runs))} }};",
                "static void fill(struct Warp *w) {",
                *(f"  for (int l = 0; l < 32; l++) w->{c}[l] = {POISON[bits]};" for c, bits in saved),
                "}",
                '#include "driver.h"',
            )
        )
        parsed = self.parsed
        instructions = sum(map(len, self.runs))
        return Kernel(
            parsed.name, len(parsed.parameters), parsed.threads, source, parsed.places, parsed.lines, instructions,
            self.products.count,
        )  # fmt: skip
