"""A block of a kernel's threads, interpreted from PTX: what do its warps issue, and how long are they under way?

No device is needed. All threads of a block go together, always those that are furthest behind, as warps come together
again after a branch; an instruction counts once for every warp that has a thread in it. PTX is not machine code: what
the assembler makes of one PTX instruction is estimated (`WEIGHTS`), so a count is right to about a quarter, and two
counts of one kernel compare much better than that. How long the block takes where nothing else is done is estimated
too: results are there some cycles after what they come of (`LATENCIES`), those of loads much later; the assembler
orders what lies between two branches so that little waits, so there only what an instruction needs holds it up, but a
branch waits until all before it is issued. The interpreter's numbers are checked against the host's
(`tests/cuda/test_instructions.py`).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS: dict[str, Any] = {
    f"{letter}{bits}": np.dtype(f"{kind}{bits // 8}")
    for bits in (8, 16, 32, 64)
    for letter, kind in (("u", "u"), ("b", "u"), ("s", "i"))
} | {"f32": np.dtype("f4"), "f64": np.dtype("f8")}
"""NumPy's dtypes of PTX's."""

WEIGHTS = {
    "cvta": 0.0, "ld.param": 0.3, "bra": 1.5, "mov": 0.5, "neg.f32": 0.0, "abs.f32": 0.0, "and.pred": 0.5,
    "or.pred": 0.5, "xor.pred": 0.5, "not.pred": 0.0, "mul.lo.s64": 3.5, "mad.lo.s64": 4.0, "mul.hi.s64": 8.0,
    "mul.hi.u64": 8.0, "div.u32": 19.0, "rem.u32": 17.0, "div.s32": 22.0, "rem.s32": 20.0, "div.s64": 90.0,
    "rem.s64": 90.0, "div.u64": 80.0, "rem.u64": 80.0, "min.s64": 4.0, "max.s64": 4.0, "div.rn.f32": 10.0,
    "rcp.rn.f32": 7.0, "sqrt.rn.f32": 8.0, "div.full.f32": 4.0, "lg2.approx.f32": 3.0, "ex2.approx.f32": 3.0,
    "rsqrt.approx.f32": 3.0, "rcp.approx.f32": 3.0, "sqrt.approx.f32": 4.0, "cvt.u32.u64": 0.0, "cvt.u64.u32": 0.5,
    "mul.wide.s32": 1.0, "mul.wide.u32": 1.0, "ret": 1.0, "bar.sync": 1.0,
}  # fmt: skip
"""Machine instructions of a PTX instruction, by its name or the beginning of it; else one, and two in 64 bits."""


LATENCIES = {
    "ld.param": 0, "ld.shared": 30, "lg2": 20, "ex2": 20, "rsqrt": 20, "rcp": 25, "sqrt": 30, "div.rn.f32": 60,
    "div": 60, "rem": 60,
}  # fmt: skip
"""Cycles until a result is there, by the beginning of an instruction's name; else `ALU`."""
ALU, BRANCH, NEAR, FAR = 5, 10, 40, 700
"""Cycles of arithmetic, of a branch, and of a load whose line of memory the block has loaded before, or has not. That
is an assumption: some 300 from the second cache and 500 from memory where nothing else is done, more where others load
too. Threads that walked long arrays beside another column's work took one to three times what comes of it (H100,
2026-11-27)."""
LINE = 7
"""Bits of an address within a line."""


def latency(operation: str) -> int:
    """Cycles until what an instruction gives is there; loads from memory aside."""
    for name, cycles in LATENCIES.items():
        if operation.startswith(name):
            return cycles
    return ALU


def weight(operation: str) -> float:
    """Machine instructions that a PTX instruction becomes, about."""
    for name in (operation, ".".join(operation.split(".")[:2]), operation.split(".", maxsplit=1)[0]):
        if name in WEIGHTS:
            return WEIGHTS[name]
    return 2.0 if operation.endswith(("s64", "u64", "b64")) and not operation.startswith(("ld", "st", "cvt")) else 1.0


@dataclass
class Region:
    """Numbers at an address: real ones, or a tile of them that is repeated as often as needed and never written."""

    base: int
    nbytes: int
    numbers: NDArray[Any]
    repeated: bool = False


@dataclass
class Memory:
    """What a kernel may touch."""

    regions: list[Region] = field(default_factory=list)

    def add(self, numbers: NDArray[Any], nbytes: int | None = None) -> int:
        """Give numbers an address; with `nbytes` they are repeated to fill so many."""
        end = self.regions[-1].base + self.regions[-1].nbytes if self.regions else 1 << 20
        base = (end // 4096 + 2) * 4096
        flat = np.ascontiguousarray(numbers).reshape(-1)
        self.regions.append(Region(base, flat.nbytes if nbytes is None else nbytes, flat, nbytes is not None))
        return base

    def _region(self, address: int, width: int) -> Region:
        for region in self.regions:
            if region.base <= address and address + width <= region.base + region.nbytes:
                return region
        raise IndexError(f"no array has the address {address}")

    def load(self, addresses: NDArray[np.uint64], kind: np.dtype[Any]) -> NDArray[Any]:
        found = np.empty(addresses.size, kind)
        left = np.ones(addresses.size, bool)
        while left.any():
            first = int(addresses[left][0])
            region = self._region(first, kind.itemsize)
            here = left & (addresses >= region.base) & (addresses < region.base + region.nbytes)
            index = (addresses[here] - np.uint64(region.base)).astype(np.int64)
            assert not (index % kind.itemsize).any(), "an address that is not a multiple of the number's size"
            numbers = region.numbers.view(np.uint8)
            numbers = numbers[: numbers.size // kind.itemsize * kind.itemsize].view(kind)
            index //= kind.itemsize
            found[here] = numbers[index % numbers.size] if region.repeated else numbers[index]
            left &= ~here
        return found

    def store(self, addresses: NDArray[np.uint64], values: NDArray[Any]) -> None:
        for address, value in zip(addresses.tolist(), values, strict=True):
            region = self._region(address, values.itemsize)
            if not region.repeated:
                region.numbers.view(np.uint8).view(values.dtype)[(address - region.base) // values.itemsize] = value


@dataclass(frozen=True)
class Line:
    """One instruction: its predicate, if any, and whether that is negated."""

    predicate: str | None
    negated: bool
    operation: str
    arguments: tuple[str, ...]


class Program:
    """A kernel's PTX, taken apart."""

    def __init__(self, ptx: str) -> None:
        head, body = ptx[ptx.index(".visible .entry") :].split("\n{", 1)
        self.parameters = re.findall(r"\.param\s+(?:\.align \d+ )?\.(\w+) ([\w$]+)", head)
        self.positions = {name: i for i, (_, name) in enumerate(self.parameters)}
        self.lines: list[Line] = []
        self.labels: dict[str, int] = {}
        for text in body.splitlines():
            line = text.split("//")[0].strip()
            if label := re.match(r"^(\$?[\w$]+):$", line):
                self.labels[label[1]] = len(self.lines)
            elif found := re.match(r"^(?:@(!?)(%p\d+)\s+)?([a-z][\w.:]*)\s*(.*?);$", line):
                arguments = re.findall(r"\[[^\]]*\]|\{[^}]*\}|[^,\s][^,]*", found[4])
                self.lines.append(Line(found[2], found[1] == "!", found[3], tuple(a.strip() for a in arguments)))


Counts = Counter[str]


class Clock:
    """When each warp of a block has issued what, in cycles."""

    def __init__(self, warps: int) -> None:
        self.begin, self.last, self.issued, self.stored = np.zeros((4, warps))
        self.ready: dict[str, NDArray[np.float64]] = {}
        self.loaded: set[int] = set()

    def end(self) -> NDArray[np.float64]:
        """Until every warp's last instruction is issued."""
        return np.maximum(self.last, self.begin + self.issued)

    def tick(
        self, line: Line, base: str, warps: NDArray[np.bool_], weight: float, reached: list[tuple[int, set[int]]]
    ) -> int:
        """One instruction of some warps; how many lines of memory it reached for."""
        start = self.begin.copy()
        gives = line.arguments[:1] if base not in ("st", "bra", "bar", "barrier") else ()
        for name in re.findall(r"%\w+", " ".join((line.predicate or "", *line.arguments[len(gives) :]))):
            if name in self.ready:
                start = np.maximum(start, self.ready[name])
        memory = ".param" not in line.operation and ".shared" not in line.operation
        if base == "ld" and memory:
            start = np.maximum(start, self.stored)  # it might be what was stored
        self.last = np.where(warps, np.maximum(self.last, start), self.last)
        self.issued[warps] += weight
        if base == "st" and memory:
            self.stored = np.where(warps, start, self.stored)
        if base in ("bra", "bar", "barrier", "ret"):
            now = self.end() + (BRANCH if base == "bra" else 0)
            self.begin = np.where(warps, now, self.begin) if base in ("bra", "ret") else np.full_like(now, now.max())
            self.issued = np.where(warps, 0, self.issued)
        taken = np.full(len(warps), float(latency(line.operation)))
        if base == "ld" and memory:
            for warp, lines in reached:
                taken[warp] = NEAR if lines <= self.loaded else FAR
            self.loaded.update(*(lines for _, lines in reached))
        for name in re.findall(r"%\w+", " ".join(gives)):
            before = self.ready.get(name, np.zeros(len(warps)))
            self.ready[name] = np.where(warps, start + taken, before)
        return sum(len(lines) for _, lines in reached)


class Block:
    """The threads of one block.

    Args:
        program: what they do
        parameters: the kernel's arguments, as `parameters_of` gives them
        memory: what lies at the addresses among them
        block, threads, blocks: index of the block, its threads, and the grid, each (x, y, z)
        shared: bytes of shared memory that are asked for at the launch
    """

    def __init__(
        self, program: Program, parameters: list[Any], memory: Memory, block: tuple[int, int, int],
        threads: tuple[int, int, int], blocks: tuple[int, int, int], shared: int = 0,
    ) -> None:  # fmt: skip
        self.program, self.parameters, self.memory = program, parameters, memory
        many = threads[0] * threads[1] * threads[2]
        self.size = -(-many // 32) * 32
        lane = np.arange(self.size)
        self.special: dict[str, Any] = {"%dynamic_smem_size": np.full(self.size, shared, np.uint64)}
        positions = (lane % threads[0], lane // threads[0] % threads[1], lane // (threads[0] * threads[1]))
        for axis, letter in enumerate("xyz"):
            self.special[f"%tid.{letter}"] = positions[axis].astype(np.uint64)
            for name, value in (("ntid", threads), ("ctaid", block), ("nctaid", blocks)):
                self.special[f"%{name}.{letter}"] = np.full(self.size, value[axis], np.uint64)
        self.alive = lane < many
        self.reached: NDArray[np.uint64] | None = None  # addresses of the instruction at hand
        self.registers: dict[str, NDArray[Any]] = {}
        self.shared = np.zeros(max(shared, 8), np.uint8)

    def value(self, name: str, kind: str) -> NDArray[Any]:
        """An operand as numbers of a kind."""
        if kind == "pred":
            return self.registers[name] if name.startswith("%") else np.full(self.size, name not in ("0", "false"))
        dtype = KINDS[kind]
        if name.startswith(("0f", "0d")):
            bits = np.full(self.size, int(name[2:], 16), np.uint64)
        elif name in self.special:
            bits = self.special[name]
        elif name.startswith("%"):
            bits = self.registers[name]
        elif re.match(r"-?\d|0x", name):
            bits = np.full(self.size, int(name, 0) % (1 << 64), np.uint64)
        else:
            bits = np.zeros(self.size, np.uint64)  # shared memory begins at 0
        return bits.astype(f"u{dtype.itemsize}").view(dtype)

    def put(self, name: str, value: NDArray[Any], mask: NDArray[np.bool_]) -> None:
        """Set a register in some threads."""
        if value.dtype != np.bool_:
            value = np.ascontiguousarray(value).view(f"u{value.itemsize}").astype(np.uint64)
        old = self.registers.get(name)
        self.registers[name] = np.where(mask, value, 0 if old is None else old).astype(value.dtype)

    def run(self, limit: int = 500_000) -> Counts:
        """Go through the program; returns what the warps issued: ``issued`` (machine instructions, about), and PTX
        instructions by their names; ``lines`` of memory that their loads and stores reached, each instruction's
        anew; and ``cycles`` until the last of them is done, about."""
        counts: Counts = Counter()
        clock = Clock(self.size // 32)
        where = np.zeros(self.size, np.int64)
        alive = self.alive.copy()
        lines, labels = self.program.lines, self.program.labels
        weights = [weight(line.operation) for line in lines]
        for _ in range(limit):
            if not alive.any():
                counts["cycles"] = int(clock.end().max())
                return counts
            here = int(where[alive].min())
            together = alive & (where == here)
            line = lines[here]
            active = together
            if line.predicate is not None:
                asked = self.registers[line.predicate]
                active = together & (~asked if line.negated else asked)
            issuing = together.reshape(-1, 32).any(axis=1)
            warps = int(issuing.sum())
            self.reached = None
            counts["issued"] += warps * weights[here]  # type: ignore[assignment]
            counts[line.operation] += warps
            where[together] += 1
            base = line.operation.split(".")[0]
            if base == "bra":
                where[active] = labels[line.arguments[0]]
            elif base in ("ret", "exit"):
                alive &= ~active
            elif base not in ("bar", "barrier"):
                with np.errstate(all="ignore"):
                    self.do(base, line.operation, line.arguments, active)
            counts["lines"] += clock.tick(line, base, issuing, weights[here], self._lines(active))
        raise RuntimeError("a kernel that does not end")

    def _lines(self, active: NDArray[np.bool_]) -> list[tuple[int, set[int]]]:
        """Of every warp that reached for memory, the lines."""
        if self.reached is None:
            return []
        warps, lines = np.flatnonzero(active) // 32, self.reached >> np.uint64(LINE)
        return [(int(warp), set(lines[warps == warp].tolist())) for warp in np.unique(warps)]

    def do(self, base: str, operation: str, arguments: tuple[str, ...], active: NDArray[np.bool_]) -> None:
        """One instruction in some threads."""
        if base == "ld":
            self._load(operation, arguments, active)
        elif base == "st":
            self._store(operation, arguments, active)
        else:
            self.put(arguments[0], self.result(base, operation, arguments[1:]), active)

    def _addresses(self, text: str) -> NDArray[np.uint64]:
        name, _, offset = text.strip("[]").partition("+")
        return self.value(name, "u64") + np.uint64(int(offset or 0) % (1 << 64))

    def _load(self, operation: str, arguments: tuple[str, ...], active: NDArray[np.bool_]) -> None:
        kind = operation.rsplit(".", maxsplit=1)[-1]
        if operation.startswith("ld.param"):
            value = self.parameters[self.program.positions[arguments[1].strip("[]")]]
            self.put(arguments[0], np.full(self.size, value).astype(KINDS[kind]), active)
            return
        if not active.any():
            return
        dtype = KINDS[kind]
        names = arguments[0].strip("{}").replace(" ", "").split(",")
        for k, name in enumerate(names):
            at = self._addresses(arguments[1])[active] + np.uint64(k * dtype.itemsize)
            found = np.zeros(self.size, dtype)
            if ".shared" in operation:
                found[active] = self.shared.view(dtype)[at.astype(np.int64) // dtype.itemsize]
            else:
                self.reached = at
                found[active] = self.memory.load(at, dtype)
            wide = {"i": np.int64, "u": np.uint64}.get(dtype.kind)
            self.put(name, found if wide is None else found.astype(wide), active)

    def _store(self, operation: str, arguments: tuple[str, ...], active: NDArray[np.bool_]) -> None:
        if not active.any():
            return
        dtype = KINDS[operation.rsplit(".", maxsplit=1)[-1]]
        names = arguments[1].strip("{}").replace(" ", "").split(",")
        for k, name in enumerate(names):
            at = self._addresses(arguments[0])[active] + np.uint64(k * dtype.itemsize)
            values = self.value(name, operation.rsplit(".", maxsplit=1)[-1])[active]
            if ".shared" in operation:
                self.shared.view(dtype)[at.astype(np.int64) // dtype.itemsize] = values
            else:
                self.reached = at
                self.memory.store(at, values)

    def result(self, base: str, operation: str, names: tuple[str, ...]) -> NDArray[Any]:
        """What an instruction without memory gives."""
        parts = operation.split(".")
        kind = parts[-1]
        if base == "cvta":
            return self.value(names[0], "u64")
        if base == "mov":
            return self.value(names[0], kind)
        if base == "cvt" and ".bf16x2." in operation:
            bits = [self.value(name, "u32") for name in names]
            high, low = (b + np.uint32(0x7FFF) + ((b >> np.uint32(16)) & np.uint32(1)) for b in bits)
            return (high & np.uint32(0xFFFF0000)) | (low >> np.uint32(16))
        if base == "cvt":
            return _converted(self.value(names[0], kind), KINDS[parts[-2]], operation)
        if base == "selp":
            return np.where(self.registers[names[2]], self.value(names[0], kind), self.value(names[1], kind))
        if base == "setp":
            return _compared(parts[1], self.value(names[0], kind), self.value(names[1], kind))
        if base in ("shl", "shr"):
            shift = self.value(names[1], "u32").astype(KINDS[kind])
            x = self.value(names[0], kind)
            bits = KINDS[kind].itemsize * 8
            kept = np.minimum(shift, bits - 1).astype(KINDS[kind])
            moved = x << kept if base == "shl" else x >> kept
            return np.where(shift < bits, moved, 0 if KINDS[kind].kind == "u" else moved).astype(KINDS[kind])
        values = [self.value(name, kind) for name in names]
        if ".wide" in operation:
            wide = np.dtype(f"{KINDS[kind].kind}{2 * KINDS[kind].itemsize}")
            product = values[0].astype(wide) * values[1].astype(wide)
            return product + self.value(names[2], f"{kind[0]}64") if base == "mad" else product
        if ".hi" in operation:
            bits = KINDS[kind].itemsize * 8
            high = [(int(a) * int(b)) >> bits for a, b in zip(values[0], values[1], strict=True)]
            return np.array(high, KINDS[kind])
        rule = np.maximum if operation.startswith("max.NaN") else _OPERATIONS[base]
        return np.asarray(rule(*values)).astype(values[0].dtype)


def _divided(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """A quotient; of whole numbers cut towards zero."""
    if a.dtype.kind == "f":
        return a / b
    safe = np.where(b == 0, 1, b).astype(a.dtype)
    quotient = a // safe
    return quotient + ((a % safe != 0) & ((a < 0) != (safe < 0))) if a.dtype.kind == "i" else quotient


_OPERATIONS: dict[str, Any] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "fma": lambda a, b, c: (a.astype(np.float64) * b + c) if a.dtype == np.float32 else a * b + c,
    "mad": lambda a, b, c: a * b + c,
    "div": _divided,
    "rem": lambda a, b: a - _divided(a, b) * b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "not": lambda a: ~a,
    "neg": lambda a: -a,
    "abs": np.abs,
    "min": np.fmin,
    "max": np.fmax,
    "rcp": lambda a: 1 / a,
    "ex2": np.exp2,
    "lg2": np.log2,
    "sqrt": np.sqrt,
    "rsqrt": lambda a: 1 / np.sqrt(a),
    "tanh": np.tanh,
    "copysign": lambda a, b: np.copysign(b, a),
    "bfe": lambda a, first, many: (a >> first) & ((1 << many) - 1),
    "bfi": lambda a, b, first, many: (b & ~(((1 << many) - 1) << first)) | ((a & ((1 << many) - 1)) << first),
    "prmt": lambda a, b, how: _bytes_of(a.astype(np.uint64) | b.astype(np.uint64) << np.uint64(32), how),
}


def _bytes_of(pair: NDArray[np.uint64], how: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Four of the eight bytes of a pair, by the digits of `how`."""
    found = np.zeros_like(pair)
    for k in range(4):
        which = (how.astype(np.uint64) >> np.uint64(4 * k)) & np.uint64(7)
        found |= ((pair >> (np.uint64(8) * which)) & np.uint64(255)) << np.uint64(8 * k)
    return found


def _converted(x: NDArray[Any], kind: np.dtype[Any], operation: str) -> NDArray[Any]:
    for name, rule in (("rmi", np.floor), ("rpi", np.ceil), ("rni", np.rint), ("rzi", np.trunc)):
        if f".{name}." in operation:
            x = rule(x)
    if x.dtype.kind == "f" and kind.kind != "f":
        limits = np.iinfo(kind)
        x = np.clip(np.nan_to_num(x.astype(np.float64), nan=0.0), float(limits.min), float(limits.max))
    found = x.astype(kind)
    return found.astype(np.int64) if kind.kind == "i" else found  # registers are wider, and hold the sign


def _compared(how: str, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    unordered = np.zeros(a.shape, bool) if a.dtype.kind != "f" else np.isnan(a) | np.isnan(b)
    rules: dict[str, Any] = {"eq": a == b, "ne": (a != b) & ~unordered, "lt": a < b, "le": a <= b, "gt": a > b,
                             "ge": a >= b, "lo": a < b, "ls": a <= b, "hi": a > b, "hs": a >= b,
                             "nan": unordered, "num": ~unordered}  # fmt: skip
    return rules[how] if how in rules else rules[how.removesuffix("u")] | unordered
