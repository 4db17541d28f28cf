"""PTX text of one kernel to instructions, labels and registers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# Bits of each PTX type.
BITS = {"pred": 8, "f16": 16, "bf16": 16, "f32": 32, "f64": 64}
BITS |= {"f16x2": 32, "bf16x2": 32, "s16x2": 32, "u16x2": 32, "f32x2": 64}
BITS |= {f"{kind}{n}": n for kind in "usb" for n in (8, 16, 32, 64)}


class Unsupported(Exception):
    """A PTX statement that the translation to C does not support."""


@dataclass
class Instruction:
    line: int  # from 1
    text: str
    parts: list[str]  # "ld.global.b32" as ["ld", "global", "b32"]
    operands: list[str]
    guard: str | None = None  # predicate register
    negated: bool = False

    @property
    def opcode(self) -> str:
        return self.parts[0]

    @property
    def type(self) -> str:
        return self.parts[-1]

    @property
    def modifiers(self) -> set[str]:
        return set(self.parts[1:-1])


@dataclass
class Parsed:
    """A kernel. ``items`` has instructions and, as strings, labels."""

    name: str
    parameters: list[tuple[str, str]]  # (type, name)
    threads: int
    shared: set[str]  # names of shared memory
    lines: list[str]
    registers: dict[str, int] = field(default_factory=dict)  # name: bits
    items: list[Instruction | str] = field(default_factory=list)
    targets: dict[str, list[str]] = field(default_factory=dict)  # of a jump by index: its table's name, labels
    places: dict[int, str] = field(default_factory=dict)  # PTX line: source line


def split_operands(text: str) -> list[str]:
    """Operands between commas; {...} and [...] stay whole."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "{[") - (c in "}]")
        if c == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    last = text[start:].strip()
    return [*parts, last] if last else parts


def parse(ptx: str) -> Parsed:
    """Parse the only kernel of ``ptx``. Raises Unsupported for a statement it does not know."""
    ptx = re.sub(r"\.branchtargets[^;]*;", lambda m: " ".join(m[0].split()) + "\n" * m[0].count("\n"), ptx)
    head = ptx.index(".visible .entry")
    body = ptx.index("\n{", head)
    declaration = ptx[head:body]
    align = r"(?:\.ptr\s+\.\w+\s+\.align\s+\d+\s+|\.align\s+\d+\s+)?"
    name = re.search(r"\.entry\s+([\w$]+)\(", declaration)
    threads = re.search(r"\.(?:reqntid|maxntid)\s+(\d+)", declaration)
    assert name
    assert threads
    parsed = Parsed(
        name[1],
        re.findall(rf"\.param\s+\.(\w+)\s+{align}([\w$]+)", declaration),
        int(threads[1]),
        set(re.findall(r"\.shared\s+\.align\s+\d+\s+\.b8\s+([\w$]+)", ptx)),
        ptx.splitlines(),
    )
    here, depth = "", 0
    for n in range(ptx[:body].count("\n") + 1, len(parsed.lines)):
        text = re.sub(r"//.*", "", parsed.lines[n]).strip()
        if location := re.match(r"\.loc\s+\d+\s+(\d+)", text):
            comment = re.search(r"//\s*(.*)", parsed.lines[n])
            here = comment[1] if comment else location[1]
            continue
        parsed.places[n + 1] = here
        while text:
            if text[0] in "{}":
                depth += 1 if text[0] == "{" else -1
                if depth == 0:
                    return parsed
                text = text[1:].strip()
            elif label := re.match(r"([\w$]+):", text):
                parsed.items.append(label[1])
                text = text[label.end() :].strip()
            else:
                statement, _, text = text.partition(";")
                text = text.strip()
                _statement(parsed, n + 1, statement.strip())
    raise Unsupported("the kernel has no end")


def _statement(parsed: Parsed, line: int, text: str) -> None:
    if not text or text.startswith(".pragma"):
        return
    if declared := re.match(r"\.reg\s+\.(\w+)\s+(.*)", text):
        bits = BITS[declared[1]]
        for register in map(str.strip, declared[2].split(",")):
            if counted := re.match(r"(%?\w+)<(\d+)>", register):
                parsed.registers |= {f"{counted[1]}{i}": bits for i in range(int(counted[2]))}
            else:
                parsed.registers[register] = bits
        return
    if text.startswith(".branchtargets"):  # after the label that is the table's name
        name = parsed.items.pop()
        assert isinstance(name, str)
        parsed.targets[name] = split_operands(text.removeprefix(".branchtargets"))
        return
    if text.startswith("."):
        raise Unsupported(f"line {line}: {text}")
    guard, negated = None, False
    if guarded := re.match(r"@(!?)(%?\w+)\s+", text):
        guard, negated = guarded[2], guarded[1] == "!"
        text = text[guarded.end() :]
    opcode = re.match(r"([\w.:]+)\s*(.*)", text, re.S)
    assert opcode
    operands = split_operands(opcode[2])
    parsed.items.append(Instruction(line, text, opcode[1].split("."), operands, guard, negated))
