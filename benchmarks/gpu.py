"""minialex's CUDA backend beside PyTorch on the same GPU, everything in one command:

    python benchmarks/gpu.py

on a bare machine that has cupy, numba, numba-cuda and torch (nothing need be installed of minialex; the source tree is
enough). What it measured on a device is in ``results/device``. It runs anywhere, smaller, which is how it is tested:

    python benchmarks/gpu.py --backend numba --device cpu:0 --recipe small --batch-sizes 32 --precisions float32

For every precision and batch size:

- the training step (uint8 images on the device are cropped, reflected, shifted in colour and freed of their mean;
  forward, cost, backward, update), ours beside PyTorch eager, `torch.compile`, and `torch.compile` of a network tuned
  for it (see `gpu_peer_tuned`), channels-last, in the same precision: some steps of each side in turn, round after
  round, so that all see the same machine; the median of the rounds;
- ours layer by layer beside the floor that the device's own measured rates give (`minialex.speed.plan`), on processors;
  on a GPU, where the host's clock tells nothing of a layer, each side's longest kernels (see `gpu_busy`);
- ours with one column instead of two, from which what columns cost on one device is estimated, not measured: nothing
  here computes both columns of a layer at once (see `gpu_goals.columns_cost`);
- how much of a step the device computes (see `gpu_busy`; this too needs torch);
- end to end: an epoch of training (`minialex.training.loop.epoch_steps`) on images in the host's memory, the next batch
  read and sent while the device computes, the loss read after every step; the peer gets the same loader, with as many
  threads, which read straight into pinned memory for it, too.

What fails (a batch that does not fit, say) is recorded as an error, and the rest goes on. Figures are written after
every part, with machine, versions, command and date; the goals of the project stand beside them, met or not met. With
`--resume` what the file has in full is not measured again, and `--rates FILE` keeps the device's rates for other calls.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "backends"), str(ROOT / "benchmarks")]  # not installed on a bare machine

import numpy as np  # noqa: E402

from minialex.backend import registry  # noqa: E402
from minialex.backend.program import STEP  # noqa: E402
from minialex.backend.protocol import Backend  # noqa: E402
from minialex.data.dataset import ArraySplit, Split, Subset  # noqa: E402
from minialex.data.draws import epoch_order  # noqa: E402
from minialex.data.loader import Batch, batches  # noqa: E402
from minialex.data.statistics import Statistics  # noqa: E402
from minialex.doctor import devices, processor  # noqa: E402
from minialex.engine.kept import Kept  # noqa: E402
from minialex.engine.schedule import epoch_rates  # noqa: E402
from minialex.engine.session import Session  # noqa: E402
from minialex.errors import ConfigurationError, MinialexError  # noqa: E402
from minialex.network import variants  # noqa: E402
from minialex.network.parameters import join_columns  # noqa: E402
from minialex.recipe.fields import Recipe  # noqa: E402
from minialex.recipe.toml import load  # noqa: E402
from minialex.speed import bench, machine, plan  # noqa: E402
from minialex.speed.peaks import cores  # noqa: E402
from minialex.speed.rates import PRECISIONS, Rates, read  # noqa: E402
from minialex.storage import atomic  # noqa: E402
from minialex.training.loop import MOST_READERS, epoch_steps, read_ahead, readers  # noqa: E402

from gpu_busy import by_events, traced  # noqa: E402  isort: skip
from gpu_goals import COMPILED, EAGER, ONE_COLUMN, OURS, SIDES, TUNED, goals, quickest  # noqa: E402  isort: skip
from gpu_goals import table as table_of_goals  # noqa: E402  isort: skip

RESULTS = ROOT / "benchmarks" / "results" / "gpu.json"
PEERS = {"pytorch": EAGER, "torch.compile": COMPILED, "tuned": TUNED}
SMALL = (
    256  # images: of as many or fewer the tuned peer replays CUDA graphs, as the host is slower than the device then
)
WATCHED = 5  # steps that are looked at layer by layer
REPEATED = 4  # times that an epoch has each image: its first batch, which nothing can hide, shall not count much
WARMED = 8  # batches before end to end is timed: memory that they lie in is made once


class Side(Protocol):
    """What is timed."""

    def steps(self, count: int) -> None:
        """Training steps on one batch that is on the device; returns when the last one is done."""
        ...

    def epoch(self, split: Split) -> None:
        """Training steps on all batches of some images in the host's memory, each one's loss read."""
        ...


class Ours:
    """minialex, all columns on one device."""

    def __init__(self, recipe: Recipe, backend: Backend, device: str, weights: Mapping[str, Any] | None) -> None:
        mean = np.full((3, recipe.image_size, recipe.image_size), 127.5, np.float32)
        placement = (device,) * recipe.columns
        self.session = Session(recipe, backend, placement, Statistics(mean, np.eye(3) * 5000.0), weights)
        self.recipe, self.device, self.done = recipe, device, 0
        self.now = epoch_rates(recipe, 1, ())
        self.feed = self.session.training_feed(*bench.random_batch(recipe, recipe.batch_size), 0, self.now)
        self.step = self.session.step("train", recipe.batch_size)

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step({**self.feed, STEP: self.done})
            self.done += 1
        self.session.backend.synchronize(self.device)

    def asked(self) -> list[dict[str, Any]]:
        """What one step asks of a GPU, with the time of each by events; no graph replays it."""
        step: Any = self.step
        graphs, step._graphs = step._graphs, False
        try:
            backend: Any = self.session.backend
            return by_events(backend.runtime, backend.place(self.device).stream, lambda: self.steps(1))
        finally:
            step._graphs = graphs

    def epoch(self, split: Split, kept: Kept | None = None) -> None:
        with closing(epoch_steps(self.session, split, 0, self.now, ahead=lambda step: True, kept=kept)) as results:
            sum(result.right for result in results)  # what training tells of each

    def fed(self, split: Split) -> dict[str, float]:
        """Seconds that a batch takes to be read, and to be sent, each with nothing beside it; and in training, if all
        images are on the device."""
        batch, found = self.recipe.batch_size, {}
        with closing(read_ahead(self.session, split, np.arange(len(split)), batch)) as source:
            images, labels = next(source)[1:]
            found["read"] = seconds_of(lambda: sum(1 for _ in source)) / max(1, len(split) // batch - 1)

        def send() -> None:
            for _ in range(WARMED):
                self.session.upload(images, labels, 0, self.now)
            self.session.backend.synchronize(self.device)

        send()
        found["sent"] = seconds_of(send) / WARMED
        kept = self.session.keep(split, readers(self.session))
        if kept is not None:
            self.epoch(split, kept)
            found["kept"] = seconds_of(lambda: self.epoch(split, kept)) * batch / len(split)
        return found

    def watched(self) -> dict[bench.Key, float]:
        """Seconds of every layer in every phase of one step."""
        marks: list[tuple[bench.Key, float]] = []
        self.step(
            {**self.feed, STEP: self.done},
            lambda layer, column, phase: marks.append(((layer, phase), time.perf_counter())),
        )
        self.session.backend.synchronize(self.device)
        self.done += 1
        ends = [*(when for _, when in marks[1:]), time.perf_counter()]
        seconds: dict[bench.Key, float] = {}
        for (key, begin), end in zip(marks, ends, strict=True):
            seconds[key] = seconds.get(key, 0.0) + end - begin
        return seconds


class Theirs:
    """PyTorch, eager or compiled, the network as a user writes it or tuned."""

    def __init__(self, recipe: Recipe, device: str, compiled: str | None, tuned: bool) -> None:
        from gpu_peer import DevicePeer

        mean = np.full((3, recipe.image_size, recipe.image_size), 127.5, np.float32)
        network = variants.build(recipe)
        place = device if device.startswith("cuda") else "cpu"
        found = Statistics(mean, np.eye(3) * 5000.0)
        self.peer = DevicePeer(recipe, network, found, place, recipe.precision, compiled, tuned)
        self.recipe, self.mode = recipe, compiled
        self.batch = self.peer.upload(*bench.random_batch(recipe, recipe.batch_size))

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.peer.train(*self.batch)
        self.peer.synchronize()

    def epoch(self, split: Split) -> None:
        order = epoch_order(len(split), seed=self.recipe.seed, epoch=1)
        workers, empty = self.recipe.loader_threads, None
        if self.peer.device.type == "cuda":
            workers, empty = max(workers, min(cores(), MOST_READERS)), self.peer.pinned
        with closing(batches(split, order, self.recipe.batch_size, workers=workers, empty=empty)) as source:
            batch = following(source)
            sent = None if batch is None else self.peer.upload(*batch)
            while sent is not None:
                loss = self.peer.train(*sent)
                batch = following(source)
                sent = None if batch is None else self.peer.upload(*batch)
                float(loss)


def following(source: Iterator[Batch]) -> tuple[Any, Any] | None:
    """Images and labels of the next batch, or None after the last."""
    batch = next(source, None)
    return None if batch is None else batch[1:]


def seconds_of(run: Callable[[], object]) -> float:
    """How long something takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def summary(seconds: Sequence[float], images: int) -> dict[str, Any]:
    """The median and the spread of rounds; `images` are those of one."""
    middle = statistics.median(seconds)
    return {
        "median": middle, "low": min(seconds), "high": max(seconds), "seconds": [round(s, 7) for s in seconds],
        "images_per_second": images / middle,
    }  # fmt: skip


def in_turn(
    sides: dict[str, Side], errors: dict[str, str], rounds: int, run: Callable[[Side], object]
) -> dict[str, list[float]]:
    """Seconds of some rounds of every side, one after another, each round beginning with another side.

    A side that fails is dropped, and its error kept.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    for n in range(rounds):
        names = list(sides)
        for name in names[n % len(names) :] + names[: n % len(names)] if names else ():
            taken = attempt(lambda name=name: seconds_of(lambda: run(sides[name])), name, errors)
            if taken is None:
                del sides[name]
                found.pop(name)
            else:
                found[name].append(taken)
    return found


def attempt(work: Callable[[], Any], name: str, errors: dict[str, str]) -> Any:
    """What some work gives, or None and its error kept, of whatever kind: compilers and drivers have their own."""
    try:
        return work()
    except Exception as error:
        traceback.print_exc()
        errors[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        say(f"  {name}: {errors[name]}")
        return None


def free() -> None:
    """Give back what is not held any more, on the device too."""
    gc.collect()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()
    if "cupy" in sys.modules:
        sys.modules["cupy"].get_default_memory_pool().free_all_blocks()


def layers(seconds: Mapping[bench.Key, float], floor: plan.Floor) -> list[dict[str, Any]]:
    """Our time by the lines of a floor. A layer without a line of its own (ReLU, say) belongs to the one before it.

    What has no floor (cutting the input, the loss) comes last, with none.
    """
    lines = {name: line.layer for line in floor.lines for name in line.layer.split(" + ")}
    holder = ""
    holders: dict[str, str] = {}
    for name in dict.fromkeys(layer for layer, _ in seconds):
        holder = lines.get(name, holder if name not in ("input", "softmax") else name)
        holders[name] = holder
    found: dict[str, dict[str, float]] = {}
    for (layer, phase), taken in seconds.items():
        key = "update" if phase == "update" else holders.get(layer, layer) or layer
        parts = found.setdefault(key, {})
        parts[phase] = parts.get(phase, 0.0) + taken
    rows = [
        {"layer": line.layer, **found.pop(line.layer, {}), "floor": line.seconds, "limit": line.limit}
        for line in floor.lines
    ]
    return rows + [{"layer": name, **parts} for name, parts in found.items()]


def device_rates(device: str, kept: Path | None = None) -> Rates:
    """What the device reaches: as a file says, or else measured, and written there."""
    if kept is not None and kept.exists():
        found = read(kept)
        if device not in found:
            raise ConfigurationError(f"{kept} has no rates of {device}: name another file, and they are measured")
        return found[device]
    rates = processor.measure() if device.startswith("cpu") else devices.cards(only=device)[device]
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_json(kept, {"rates": {device: rates.as_json()}})
    return rates


def quick_weights(recipe: Recipe) -> dict[str, Any]:
    """Weights distributed as initial ones are, drawn some ten times as fast: they are only computed with."""
    random = np.random.default_rng(0)
    arrays = {}
    for name, parameter in variants.build(recipe).parameters(recipe.columns).items():
        drawn = random.standard_normal(parameter.shape, np.float32)
        arrays[name] = drawn * np.float32(parameter.std) + np.float32(parameter.constant)
    return join_columns(arrays)


class Benchmark:
    """Everything that is measured, for the command line's options."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.weights: dict[int, Mapping[str, Any]] = {}
        say(f"rates of {options.device} …")
        self.rates = device_rates(options.device, options.rates)
        self.found: dict[str, Any] = {
            "command": " ".join(["python", "benchmarks/gpu.py", *sys.argv[1:]]),
            **machine.describe(),
            "backend": options.backend,
            "device": options.device,
            "recipe": options.recipe,
            "rates": {options.device: self.rates.as_json()},
            "entries": self.earlier() if options.resume else [],
        }

    def earlier(self) -> list[dict[str, Any]]:
        """What an earlier call measured in full."""
        try:
            entries = json.loads(self.options.out.read_text(encoding="utf-8"))["entries"]
            return [entry for entry in entries if entry["complete"]]
        except (OSError, ValueError, KeyError):
            return []

    def recipe(self, precision: str, batch: int) -> Recipe:
        """What is trained, at a rate so small that weights stay what they are."""
        base = load(self.options.recipe)
        return base.replace(
            classes=base.classes or 10, batch_size=batch, learning_rate=bench.TINY_RATE, precision=precision
        )

    def sides(self, recipe: Recipe, errors: dict[str, str]) -> dict[str, Side]:
        """The sides that can be made."""
        made = {}
        more = [ONE_COLUMN] if recipe.columns > 1 else []
        wanted = [PEERS[name] for name, only in self.options.peers if only in (None, recipe.batch_size)]
        for name in [OURS, *more, *wanted]:
            if name in (OURS, ONE_COLUMN):
                columns = 1 if name == ONE_COLUMN else recipe.columns
                side = attempt(lambda columns=columns: self.ours(recipe.replace(columns=columns)), name, errors)
            else:
                side = attempt(lambda name=name: self.theirs(name, recipe), name, errors)
            if side is not None:
                made[name] = side
        return made

    def ours(self, recipe: Recipe) -> Ours:
        """Our side, with the same weights every time."""
        if recipe.columns not in self.weights:
            self.weights[recipe.columns] = quick_weights(recipe)
        backend = registry.load(self.options.backend, precision=recipe.precision)
        return Ours(recipe, backend, self.options.device, self.weights[recipe.columns])

    def theirs(self, name: str, recipe: Recipe) -> Theirs:
        """A side of PyTorch's."""
        graphs = name == TUNED and recipe.batch_size <= SMALL and self.options.device.startswith("cuda")
        mode = self.options.compile_mode or ("reduce-overhead" if graphs else "default")
        return Theirs(recipe, self.options.device, None if name == EAGER else mode, name == TUNED)

    def entry(self, precision: str, batch: int) -> None:
        """All about one precision and batch size; what is known is written down after every part."""
        options = self.options
        recipe = self.recipe(precision, batch)
        floor = self.floor(recipe) if precision in self.rates.matrix else None
        errors: dict[str, str] = {}
        if options.peers:
            attempt(lambda: import_module("gpu_peer").set_precision(precision), "PyTorch", errors)
        found: dict[str, Any] = {"precision": precision, "batch_size": batch, "complete": False, "errors": errors}
        found |= {"step": {}, "end_to_end": {}}
        self.found["entries"].append(found)
        if floor is not None:
            found["floor_seconds"] = floor.seconds
            found["floor_seconds_one_column"] = self.floor(recipe.replace(columns=1)).seconds
        sides = self.sides(recipe, errors)
        found["compile_modes"] = {name: side.mode for name, side in sides.items() if isinstance(side, Theirs)}
        first = in_turn(sides, errors, 1, lambda side: side.steps(1))
        found["first_step_seconds"] = {name: seconds[0] for name, seconds in first.items()}
        in_turn(sides, errors, 1, lambda side: side.steps(2))
        steps = in_turn(sides, errors, options.rounds, lambda side: side.steps(options.steps))
        found["step"] = {name: summary([s / options.steps for s in seconds], batch) for name, seconds in steps.items()}
        say_row(f"{precision}, batch {batch}: step", found["step"], found.get("floor_seconds"))
        self.write()
        if options.device.startswith("cuda"):
            self.trace(sides, found)
        elif OURS in sides and floor is not None:
            ours: Any = sides[OURS]
            watched = attempt(lambda: [ours.watched() for _ in range(WATCHED)], OURS, errors)
            if watched is not None:
                found["layers"] = layers(bench.medians(watched), floor)
        self.write()
        sides.pop(ONE_COLUMN, None)  # its steps are enough
        split = self.split(recipe)
        few = Subset(split, np.arange(min(WARMED * batch, len(split))))
        in_turn(sides, errors, 1, lambda side: side.epoch(few))
        epochs = in_turn(sides, errors, max(1, options.rounds // 2), lambda side: side.epoch(split))
        found["end_to_end"] = {name: summary(seconds, len(split)) for name, seconds in epochs.items()}
        say_row(f"{precision}, batch {batch}: end to end, {len(split):,} images", found["end_to_end"], None)
        if OURS in sides:
            ours = sides[OURS]
            fed = attempt(lambda: ours.fed(split), f"{OURS}, read and sent", errors)
            if fed is not None:
                found["fed"] = fed
                alone = [f"{what} in {milliseconds(fed[what])}" for what in ("read", "sent")]
                kept = f"; trained on in {milliseconds(fed['kept'])} if kept on the device" if "kept" in fed else ""
                say(f"  minialex: with nothing beside it a batch is {', '.join(alone)}{kept}")
        found["complete"] = OURS in found["step"]
        self.write()
        del sides
        free()

    def trace(self, sides: Mapping[str, Side], found: dict[str, Any]) -> None:
        """How busy each side keeps the device, and with which kernels; of ours also what was asked for, by events."""
        errors, found["kernels"] = found["errors"], {}
        for name in (side for side in (OURS, COMPILED, TUNED) if side in sides):
            side = sides[name]
            trace = attempt(lambda side=side: traced(lambda: side.steps(WATCHED), WATCHED), f"{name}, traced", errors)
            if trace is not None:
                found["kernels"][name] = trace.rows
                busy = trace.busy / WATCHED / found["step"][name]["median"]
                if name == OURS:
                    found["busy"] = busy
                say(f"  {name}: the device computes {busy:.0%} of the time")
        self.write()
        if OURS in sides:
            ours: Any = sides[OURS]
            asked = attempt(ours.asked, f"{OURS}, by events", errors)
            if asked is not None:
                found["asked"] = asked

    def floor(self, recipe: Recipe) -> plan.Floor:
        """The least time of a step, all columns on the device."""
        layout = plan.lay_out(variants.build(recipe), (0,) * recipe.columns)
        return plan.floor(layout, [self.rates], recipe.precision, recipe.batch_size)

    def split(self, recipe: Recipe) -> Subset:
        """Random images in the host's memory, whole batches of them, at least two; each several times."""
        count = max(2, self.options.images // recipe.batch_size) * recipe.batch_size
        return Subset(ArraySplit(*bench.random_batch(recipe, count)), np.tile(np.arange(count), REPEATED))

    def run(self) -> dict[str, Any]:
        """Measure everything that is not known yet."""
        known = {(entry["precision"], entry["batch_size"]) for entry in self.found["entries"]}
        for precision in self.options.precisions:
            for batch in self.options.batch_sizes:
                if (precision, batch) not in known:
                    self.entry(precision, batch)
        return self.found

    def write(self) -> None:
        """Write down what was found until now."""
        self.found["goals"] = [asdict(goal) for goal in goals(self.found["entries"], self.rates.copy)]
        self.options.out.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_json(self.options.out, self.found)


def table(found: Mapping[str, Any]) -> str:
    """The results as Markdown: goals, steps and end to end, then layers."""
    lines = [
        *table_of_goals(found["entries"], next(iter(found["rates"].values()))["copy"]),
        "",
        "| precision | batch | floor | minialex | of the floor's speed | device busy | one column | PyTorch eager "
        "| torch.compile | tuned | quicker / minialex | end to end, images/s: minialex, eager, compiled, tuned |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for entry in found["entries"]:
        times = {name: entry["step"].get(name, {}).get("median") for name in (*SIDES, ONE_COLUMN)}
        ours, floor, theirs = times[OURS], entry.get("floor_seconds"), quickest(entry)
        cells = [
            entry["precision"], f"{entry['batch_size']:,}", milliseconds(floor), milliseconds(ours),
            f"{floor / ours:.0%}" if ours and floor else "–", f"{entry['busy']:.0%}" if "busy" in entry else "–",
            milliseconds(times[ONE_COLUMN]), *(milliseconds(times[side]) for side in SIDES[1:]),
            f"{theirs / ours:.2f}" if ours and theirs else "–",
            ", ".join(
                f"{entry['end_to_end'][name]['images_per_second']:,.0f}" if name in entry["end_to_end"] else "–"
                for name in SIDES
            ),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    for entry in found["entries"]:
        if "layers" not in entry:
            continue
        lines += ["", f"{entry['precision']}, batch {entry['batch_size']:,}:", ""]
        lines += ["| layer | forward | backward | update | exchange | floor | times the floor | limited by |"]
        lines += ["|---|---:|---:|---:|---:|---:|---:|---|"]
        for row in entry["layers"]:
            phases = [row.get(phase) for phase in ("forward", "backward", "update", "exchange")]
            taken = sum(value for value in [*phases, row.get("input")] if value)
            floor = row.get("floor")
            shown = [milliseconds(value) for value in phases]
            if "input" in row:
                shown[0] = milliseconds(row["input"])
            cells = [row["layer"], *shown, milliseconds(floor), f"{taken / floor:.1f}" if floor and taken else "–"]
            lines.append(f"| {' | '.join([*cells, row.get('limit', '–')])} |")
    for entry in found["entries"]:
        tables = {f"{name}, kernels": rows for name, rows in entry.get("kernels", {}).items()}
        tables |= {"minialex, as asked": entry["asked"]} if "asked" in entry else {}
        for name, rows in tables.items():
            lines += ["", f"{entry['precision']}, batch {entry['batch_size']:,}, {name}, of one step:", ""]
            lines += ["| microseconds | calls | |", "|---:|---:|---|"]
            lines += [f"| {row['microseconds']:,.1f} | {row['calls']:g} | {row['name'][:100]} |" for row in rows]
    return "\n".join(lines) + "\n"


def milliseconds(seconds: float | None) -> str:
    """A time as text, or a dash."""
    return "–" if seconds is None else f"{1e3 * seconds:,.3g} ms" if seconds < 0.1 else f"{1e3 * seconds:,.0f} ms"


def say(text: str) -> None:
    """A line of progress."""
    print(text, flush=True)


def say_row(what: str, sides: Mapping[str, Mapping[str, float]], floor: float | None) -> None:
    """One comparison."""
    told = [f"{name} {milliseconds(found['median'])}" for name, found in sides.items()]
    say(f"  {what}: {', '.join(told)}{f' (floor {milliseconds(floor)})' if floor else ''}")


def numbers(text: str) -> list[int]:
    """Batch sizes from the command line."""
    return [int(part) for part in text.split(",")]


def words(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Names from the command line; none for an empty text."""

    def names(text: str) -> list[str]:
        found = [part.strip() for part in text.split(",") if part.strip()]
        for name in found:
            if name not in known:
                raise argparse.ArgumentTypeError(f"no '{name}'; there are {', '.join(known)}")
        return found

    return names


def peers(text: str) -> list[tuple[str, int | None]]:
    """Peers from the command line, each with the only batch size that it is timed at, or None for all."""
    found = []
    for part in text.split(",") if text.strip() else ():
        name, _, batch = part.strip().partition(":")
        if name not in PEERS or not (batch or "1").isdigit():
            raise argparse.ArgumentTypeError(f"no '{part}'; there are {', '.join(PEERS)}, also as NAME:BATCH")
        found.append((name, int(batch) if batch else None))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, record, print."""
    parser = argparse.ArgumentParser(description="minialex beside PyTorch on one GPU")
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--device", default="cuda:0", help="of the backend; PyTorch takes the same card, or the CPU")
    parser.add_argument("--recipe", default="alexnet-2012", help="a recipe's name or a .toml file")
    parser.add_argument("--batch-sizes", type=numbers, default=[128, 256, 1024])
    parser.add_argument("--precisions", type=words(list(PRECISIONS)), default=list(PRECISIONS))
    parser.add_argument(
        "--peers", type=peers, default=[(name, None) for name in PEERS],
        help=f"of {', '.join(PEERS)}; 'tuned:128' for one batch size alone, '' for none",
    )  # fmt: skip
    parser.add_argument("--compile-mode", help="of torch.compile, e.g. max-autotune-no-cudagraphs")
    parser.add_argument("--rounds", type=int, default=7, help="of every side, in turn")
    parser.add_argument("--steps", type=int, default=10, help="of one round")
    parser.add_argument("--images", type=int, default=8192, help="in the host's memory, each 4 times, end to end")
    parser.add_argument(
        "--rates", type=Path, help="the device's rates: read from this file, or measured and kept there"
    )
    parser.add_argument("--resume", action="store_true", help="measure what --out does not have in full")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    try:
        found = Benchmark(options).run()
    except MinialexError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    say("\n" + table(found))
    say(f"results: {options.out}")
    return 0 if all(entry["complete"] for entry in found["entries"]) else 6


if __name__ == "__main__":
    sys.exit(main())
