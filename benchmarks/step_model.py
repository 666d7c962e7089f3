"""What a training step on a GPU should take, predicted from what it asks for: layer by layer, beside the floor.

    python benchmarks/step_model.py --device h200 --precisions bfloat16 --batch-sizes 1024,128

The step is recorded and compiled as for a device, by a runtime that notes what it is asked for: kernels with the arrays
that they read and write, products, convolutions. Each takes the longest of

- its bytes, read or written once, at the rate of the device's memory,
- the instructions of its values (``results/instructions.json``: counted from machine-independent code, see
  `instructions`) at the rate at which the device issues them,
- the lines of memory that its warps reach for, one a cycle and multiprocessor: few where neighbours read neighbours,
- what a block takes where it is alone (there, too), as often as the device must be filled to do all blocks: what a
  single thread walks, or too few threads to hide how long memory takes,
- its products at a share of the rate of a large square one (`SHARE`, by the tiles that its columns fill),

and never less than `LEAST`; a captured graph leaves `GAP` between two. What streams do beside each other is added up,
as if one did it all. Rates are those that are known of a device (`minialex.speed.rates`), or measured: ``--rates``
takes what `gpu.py --rates` wrote, and ``--convolutions`` what `conv_table.py` wrote, whose times then stand for the
model's.

A model, not a measurement. docs/performance.md sets beside it what was measured (`device_page`): where that differs by
more than a quarter, something is missing here or one of the constants below is wrong, and the table of what was asked
that `gpu.py` keeps says which. The first run on a device (an H100, 2026-11-27) showed what was missing: threads that
walk long arrays one element after the other.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "backends"), str(ROOT / "benchmarks")]  # also where nothing is installed

from minialex.backend.program import ArrayName  # noqa: E402
from minialex.engine.step import Plan, record  # noqa: E402
from minialex.network import variants  # noqa: E402
from minialex.network.network import Network  # noqa: E402
from minialex.recipe.toml import load  # noqa: E402
from minialex.speed import plan  # noqa: E402
from minialex.speed.rates import KNOWN, PRECISIONS, Rates, read  # noqa: E402
from minialex_cuda import CudaBackend  # noqa: E402
from minialex_cuda.compiler.compiled import Step  # noqa: E402
from minialex_cuda.runtime.array import Flat  # noqa: E402
from minialex_cuda.runtime.protocol import Convolution  # noqa: E402

from gpu import milliseconds  # noqa: E402  isort: skip
from gpu_busy import LONGEST  # noqa: E402  isort: skip
from instructions import TABLE, Launch, Library, grid_of  # noqa: E402  isort: skip

CHIPS = {"h200": (132, 1.98e9, 227), "h100": (132, 1.98e9, 227), "a100": (108, 1.41e9, 163)}
"""Multiprocessors, their cycles a second, and the KiB of memory that the blocks of one can share. Each issues for four
warps of 32 threads every cycle."""
WARPS, BLOCKS, REGISTERS = 64, 32, 1 << 16
"""Of a multiprocessor at once, at most."""
ISSUING = 0.65
"""Share of it that a kernel reaches which waits for memory now and then. An assumption."""
MEMORY = 0.9
"""Share of a large copy's rate that a kernel reaches. An assumption."""
SHARE, TILE = 0.6, 64
"""Share of a large square product's rate that a layer's reaches, times that of its columns in whole tiles of so many.
An assumption: for a first guess, until `conv_table.py` has run."""
LEAST, GAP = 2.0e-6, 0.7e-6
"""Seconds of the smallest kernel, and between two of a graph. Assumptions."""


@dataclass
class Part:
    """What some layer in some phase asks for, and the seconds that the model gives it."""

    seconds: float = 0.0
    bytes: int = 0
    products: int = 0
    instructions: float = 0.0
    asked: int = 0

    def add(self, other: Part) -> None:
        """One more."""
        self.seconds += other.seconds
        self.bytes += other.bytes
        self.products += other.products
        self.instructions += other.instructions
        self.asked += other.asked


@dataclass(frozen=True)
class Chip:
    """What issues instructions.

    Attributes:
        many: multiprocessors
        clock: cycles a second
        shared: bytes that the blocks of one can share
    """

    many: int
    clock: float
    shared: int

    @property
    def issued(self) -> float:
        """Instructions of threads a second, at most."""
        return self.many * 128 * self.clock

    def fillings(self, blocks: int, threads: int, shared: int, registers: int) -> float:
        """How often the device is filled to do so many blocks; once at least, since a part of it is no quicker."""
        warps = -(-threads // 32)
        fit = min(BLOCKS, WARPS // warps, REGISTERS // (warps * 32 * -(-registers // 8) * 8))
        fit = min(fit, self.shared // (shared + 1024))  # the driver takes 1 KiB of every block's
        return max(1.0, blocks / (self.many * max(fit, 1)))


def chip(name: str) -> Chip:
    """One that is known, by its short name."""
    many, clock, shared = CHIPS[name]
    return Chip(many, clock, shared << 10)


@dataclass
class Model:
    """A device.

    Attributes:
        rates: of products and memory
        chip: multiprocessors
        counted: of each kernel what `instructions.count` gives, and its ``registers``
        convolutions: measured seconds, by what `described` says
    """

    rates: Rates
    chip: Chip
    counted: Mapping[str, Mapping[str, float]]
    convolutions: Mapping[str, float] = field(default_factory=dict)

    def _part(
        self, nbytes: int, products: int = 0, rate: float = 1.0, instructions: float = 0.0, least: float = LEAST
    ) -> Part:
        issuing = instructions / (ISSUING * self.chip.issued)
        longest = max(LEAST, least, nbytes / (MEMORY * self.rates.copy), products / rate, issuing)
        return Part(longest + GAP, nbytes, products, instructions, 1)

    def kernel(self, launch: Launch, touched: Any) -> Part:
        """A kernel over its arrays."""
        flats = [a for a in launch.arguments if isinstance(a, Flat)] if touched is None else [*touched[0], *touched[1]]
        if (row := self.counted.get(launch.kernel.name)) is None:
            raise SystemExit(f"error: {TABLE} has no {launch.kernel.name}: python benchmarks/instructions.py --write")
        values, (blocks, threads, shared) = launch.values, grid_of(launch)
        nbytes, many = sum(f.nbytes for f in flats), math.prod(blocks)
        walked = nbytes / (many * math.prod(threads)) / row["bytes"] if many and row["bytes"] else 1.0
        times = self.chip.fillings(many, math.prod(threads), shared, int(row["registers"]))
        least = max(values * row["lines"] / self.chip.many, times * row["cycles"] * walked) / self.chip.clock
        return self._part(nbytes, instructions=values * row["per_value"], least=least)

    def product(self, out: int, columns: int, depth: int, nbytes: int, precision: str) -> Part:
        """A product that gives `out` numbers, in rows of so many columns, each a sum of `depth`."""
        tiles = columns / (-(-columns // TILE) * TILE)
        return self._part(nbytes, 2 * out * depth, self.rates.matrix[precision] * SHARE * tiles)

    def convolution(self, it: Convolution, nbytes: int) -> Part:
        """By a library: as measured, or as a product of the same size."""
        products = it.N * it.P * it.Q * it.K * it.R * it.S * it.C
        out, columns = {
            "fprop": (it.N * it.P * it.Q * it.K, it.K), "dgrad": (it.N * it.H * it.W * it.C, it.C),
            "wgrad": (it.K * it.R * it.S * it.C, it.C * it.R * it.S),
        }[it.kind]  # fmt: skip
        made = self.product(out, columns, products // out, nbytes, it.precision)
        plain = described(replace(it, bias=False))  # before the fused form was timed
        if (measured := self.convolutions.get(described(it), self.convolutions.get(plain))) is not None:
            made.seconds = measured + GAP
        return made


def described(it: Convolution) -> str:
    """What tells convolutions apart."""
    kind = "fused" if it.bias else it.kind
    return f"{it.precision} {kind} {it.N} {it.C} {it.H} {it.W} {it.K} {it.R} {it.S} {it.stride}"


class Asked(Library):
    """Notes what every layer asks for in every phase."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.parts: dict[tuple[str, str], Part] = {}
        self.named: dict[str, Part] = {}
        self.where = ("", "")

    def note(self, name: str, part: Part) -> None:
        """One more of the layer and phase at hand, and of what is called so."""
        self.parts.setdefault(self.where, Part()).add(part)
        self.named.setdefault(name, Part()).add(part)

    def launch(self, stream: Any, kernel: Any, count: Any, arguments: Sequence[Any], touched: Any = None) -> None:
        self.note(kernel.name, self.model.kernel(Launch(kernel, count, tuple(arguments), frozenset()), touched))

    def multiply(self, stream: Any, a: Flat, b: Flat, out: Flat, product: Any) -> None:
        nbytes = a.nbytes + b.nbytes + out.nbytes
        self.note("product", self.model.product(product.m * product.n, product.n, product.k, nbytes, product.precision))

    def convolve(self, stream: Any, convolution: Any, a: Flat, b: Flat, out: Flat, *rest: Flat) -> None:
        self.note(
            "fprop, bias" if convolution.bias else convolution.kind,
            self.model.convolution(convolution, a.nbytes + b.nbytes + out.nbytes),
        )

    def copy(self, stream: Any, source: Flat, target: Flat) -> None:
        self.note("copy", self.model._part(source.nbytes + target.nbytes))

    def clear(self, stream: Any, target: Flat) -> None:
        self.note("clear", self.model._part(target.nbytes))


def predicted(model: Model, recipe: Any, batch: int) -> Asked:
    """What a step asks for, all columns on one device, and what it should take."""
    runtime = Asked(model)
    backend = CudaBackend(runtime=runtime, precision=recipe.precision)
    program = record(Plan(variants.build(recipe), ("cuda:0",) * recipe.columns, recipe), "train", batch, ("cuda:0",))
    bound = {name: backend.zeros(v.shape, v.dtype.name, v.device) for name, v in program.bound.items()}
    step = backend.compile_step(program, bound)
    assert isinstance(step, Step)
    feed: dict[ArrayName, Any] = dict.fromkeys(program.symbols, 1)
    feed |= {name: backend.zeros(v.shape, v.dtype.name, v.device) for name, v in program.fed.items()}
    runtime.parts.clear()
    runtime.named.clear()
    copied = [v.nbytes for v in program.fed.values()]
    for task, recorded in zip(step.schedule.tasks, step._recorded, strict=True):
        runtime.where = task.call.layer or task.call.operation, task.call.phase
        for work in recorded.works:
            work()
    runtime.where = "input", "input"
    for nbytes in copied:
        runtime.note("copy", model._part(2 * nbytes))
    return runtime


def measured_convolutions(path: Path) -> dict[str, float]:
    """The quickest plan of every convolution that `conv_table.py` timed, in seconds."""
    from convolutions import convolution

    found = {}
    for row in json.loads(path.read_text(encoding="utf-8"))["convolutions"]:
        precision, _, rest = row["name"].partition(" ")
        name, _, kind = rest.rpartition(" ")
        it = convolution(name, kind, row["batch"], precision)
        if it is not None and row["plans"]:
            found[described(it)] = min(plan["microseconds"] for plan in row["plans"]) / 1e6
    return found


def lines_of(network: Network, floor: plan.Floor) -> dict[str, str]:
    """Which line of the floor a layer belongs to: its own, or that of the layer before it (a ReLU's, say)."""
    lines = {name: line.layer for line in floor.lines for name in line.layer.split(" + ")}
    found, last = {}, ""
    for layer in network.layers:
        last = found[layer.name] = lines.get(layer.name, last)
    return found


def table(parts: Mapping[tuple[str, str], Part], network: Network, floor: plan.Floor) -> list[str]:
    """Layer by layer, as Markdown."""
    belongs = lines_of(network, floor)
    found: dict[str, dict[str, Part]] = {}
    for (layer, phase), part in parts.items():
        name = "update" if phase == "update" else belongs.get(layer, layer)
        found.setdefault(name, {}).setdefault(phase, Part()).add(part)
    floors = {line.layer: line.seconds for line in floor.lines}
    lines = [
        "| layer | forward | backward | other | floor | times the floor | bytes | products | instructions | asked |"
    ]
    lines += ["|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for name in (*floors, *(other for other in found if other not in floors)):
        phases, whole = found.get(name, {}), Part()
        for part in phases.values():
            whole.add(part)
        ways = [phases[way].seconds if way in phases else None for way in ("forward", "backward")]
        other = sum(part.seconds for way, part in phases.items() if way not in ("forward", "backward"))
        below = floors.get(name)
        times = f"{whole.seconds / below:.1f}" if below else "–"
        cells = [name, *map(milliseconds, [*ways, other or None, below]), times, f"{whole.bytes / 1e9:.2f} GB"]
        cells += [f"{whole.products / 1e9:,.0f} G", f"{whole.instructions / 1e9:,.1f} G", str(whole.asked)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def longest(named: Mapping[str, Part]) -> list[str]:
    """What takes most of the time, by its name, as Markdown."""
    lines = ["| asked for | times | in all | bytes | instructions |", "|---|---:|---:|---:|---:|"]
    for name, part in sorted(named.items(), key=lambda item: -item[1].seconds)[:LONGEST]:
        cells = [name, str(part.asked), milliseconds(part.seconds), f"{part.bytes / 1e9:.2f} GB"]
        lines.append(f"| {' | '.join([*cells, f'{part.instructions / 1e9:,.1f} G'])} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict, print."""
    parser = argparse.ArgumentParser(description="what a step on a GPU should take")
    parser.add_argument("--device", default="h200", choices=sorted(CHIPS))
    parser.add_argument("--recipe", default="alexnet-2012")
    parser.add_argument("--precisions", default="bfloat16")
    parser.add_argument("--batch-sizes", default="1024,128")
    parser.add_argument("--rates", type=Path, help="measured: what gpu.py --rates wrote")
    parser.add_argument("--convolutions", type=Path, help="measured: what conv_table.py wrote")
    options = parser.parse_args(arguments)
    rates = KNOWN[options.device] if options.rates is None else next(iter(read(options.rates).values()))
    counted = json.loads(TABLE.read_text(encoding="utf-8"))
    model = Model(rates, chip(options.device), counted)
    if options.convolutions is not None:
        model.convolutions = measured_convolutions(options.convolutions)
    for precision in options.precisions.split(","):
        if precision not in PRECISIONS:
            parser.error(f"no precision '{precision}'; choose from {', '.join(PRECISIONS)}")
        for batch in map(int, options.batch_sizes.split(",")):
            base = load(options.recipe)
            recipe = base.replace(classes=base.classes or 10, batch_size=batch, precision=precision)
            asked = predicted(model, recipe, batch)
            parts = asked.parts
            layout = plan.lay_out(variants.build(recipe), (0,) * recipe.columns)
            floor = plan.floor(layout, [rates], precision, batch)
            seconds = sum(part.seconds for part in parts.values())
            print(
                f"{rates.name}, {precision}, batch {batch:,}: predicted {milliseconds(seconds)}, "
                f"{batch / seconds:,.0f} images/s; floor {milliseconds(floor.seconds)} "
                f"({floor.seconds / seconds:.0%} of its speed)\n"
            )
            print("\n".join(table(parts, variants.build(recipe), floor)) + "\n")
            print("\n".join(longest(asked.named)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
