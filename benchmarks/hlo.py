"""Reading the text of a compiled program: its computations, and how often each is executed."""

import math
import re
from collections.abc import Iterator

# Bytes of an element, by the name of its type in HLO.
SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
SIZES |= {"s64": 8, "u64": 8, "f64": 8}


def computations(hlo: str) -> tuple[dict[str, list[str]], str]:
    """Return the instructions of each computation, and the name of the first that is executed."""
    bodies: dict[str, list[str]] = {}
    name = entry = ""
    for line in hlo.splitlines():
        # A computation begins at the margin: `[ENTRY ]%name (parameters) -> type {`.
        if header := re.match(r"(ENTRY )?(%[\w.\-]+) .*\{$", line):
            name = header[2]
            entry = name if header[1] else entry
            bodies[name] = []
        elif name:
            bodies[name].append(line)
    return bodies, entry


def used(instruction: str) -> list[str]:
    """Return the computations that an instruction uses.

    It names them as `body=%a`, `calls=%a`, `to_apply=%a` or `branch_computations={%a, %b}`.
    """
    groups = re.findall(r"=\{?(%[\w.\-]+(?:, %[\w.\-]+)*)", instruction)
    return [name for group in groups for name in group.split(", ")]


def executed(hlo: str) -> Iterator[tuple[str, int]]:
    """Yield every instruction and how often it is executed: a loop's body once for each turn.

    Raises: ValueError for a loop whose number of turns the compiler does not tell.
    """
    bodies, entry = computations(hlo)
    ahead = [(entry, 1)]
    while ahead:
        name, times = ahead.pop()
        for line in bodies[name]:
            yield line, times
            turns = 1
            if " while(" in line:
                count = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
                if count is None:
                    raise ValueError(f"a loop of unknown length: {line.strip()[:100]}")
                turns = int(count[1])
            ahead += [(inner, times * turns) for inner in used(line) if inner in bodies]


def result_bytes(instruction: str) -> int:
    """Return the bytes of the result of `%name = f32[3,16]{1,0} op(...)`, or of a tuple."""
    kind = re.split(r" [a-z][\w\-]*\(", instruction.split(" = ", 1)[1], maxsplit=1)[0]
    arrays = re.findall(r"([a-z]+\d*)\[([\d,]*)\]", kind)
    return sum(SIZES[t] * math.prod(map(int, filter(None, s.split(",")))) for t, s in arrays)
