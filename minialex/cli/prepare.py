"""What ``minialex prepare`` and ``minialex store check`` do; `minialex.cli.app` has their options."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from minialex.data.store import store
from minialex.data.store.prepare import Stopped, Summary
from minialex.data.store.prepare import prepare as make_store
from minialex.errors import ConfigurationError, DataError
from minialex.recipe.toml import load as load_recipe
from minialex.speed import machine
from minialex.speed.loading import bench_data
from minialex.storage.atomic import readable_size, write_json
from minialex.training.display import QUIET_SECONDS, duration
from minialex.training.signals import StopRequest

BENCH_SECONDS = 10.0  # of `minialex bench --data`
_SHOWN = 20  # damages that are printed


class Meter:
    """How far long work on images is: a bar on a terminal, a plain line now and then elsewhere."""

    def __init__(self, screen: Console) -> None:
        self.screen = screen
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=screen,
            transient=True,
            disable=not screen.is_terminal,
        )
        self.tasks = {"": self.progress.add_task("", visible=False, rate="")}
        self.begun: dict[str, tuple[float, int]] = {}
        self.said = time.monotonic()

    def tell(self, what: str, done: int, total: int | None) -> None:
        """So many images are done, of so many if that is known."""
        now = time.monotonic()
        if what not in self.begun:
            self.begun[what] = now, done
            self.tasks[what] = self.progress.add_task(what, total=total, rate="", completed=done)
        began, first = self.begun[what]
        rate = (done - first) / max(now - began, 1e-9)
        text = f"{rate:,.0f} images/s" if done > first else ""
        self.progress.update(self.tasks[what], completed=done, total=total, rate=text)
        if not self.screen.is_terminal and now - self.said > QUIET_SECONDS:
            self.said = now
            rest = f" of {total:,}, {duration((total - done) / rate)} left" if total and rate > 0 else ""
            self.screen.print(f"{what}: {done:,} images{rest}, {text}", highlight=False)


@contextmanager
def metered(screen: Console) -> Iterator[Meter]:
    """A meter that is shown within the block."""
    meter = Meter(screen)
    with meter.progress:
        yield meter


def prepare(
    source: Path, place: Path, size: int, validation: Path | None, words: Path | None, workers: int | None
) -> int:
    """Make a store; returns the exit code."""
    screen = Console(soft_wrap=True)
    with StopRequest() as request:
        try:
            with metered(screen) as meter:
                found = make_store(
                    source,
                    place,
                    size=size,
                    validation=None if validation is None else str(validation),
                    words=None if words is None else str(words),
                    workers=workers,
                    progress=meter.tell,
                    stop=lambda: request.requested is not None,
                )
        except Stopped:
            screen.print(f"stopped by {request.requested}; run the same command again to go on.", highlight=False)
            return request.exit_code
    _say(screen, place, found)
    return 0


def _say(screen: Console, place: Path, found: Summary) -> None:
    """What was made, what was left out, and how fast."""

    def reasons(counts: dict[str, int]) -> str:
        return ", ".join(f"{count:,} × {reason}" for reason, count in counts.items()) or "none"

    def row(label: str, text: str) -> None:
        screen.print(f"{label:<19}{text}", highlight=False, markup=False)

    row("store", f"{place} (whole already)" if found.already else str(place))
    images = found.images
    row(
        "images",
        f"{images['train']:,} for training, {images['validation']:,} for validation, {found.classes:,} classes",
    )
    row("left out", f"{reasons(found.left_out)}{_see(place, store.LEFT_OUT, found.left_out)}")
    row("not as usual", f"{reasons(found.treated)}{_see(place, store.TREATED, found.treated)}")
    if found.missing:
        some = ", ".join(found.missing[:3]) + (" …" if len(found.missing) > 3 else "")
        row("no training image", f"in {len(found.missing):,} of the classes: {some}")
    if found.decoded and found.seconds > 0:
        rate = found.decoded / found.seconds
        workers = f"{found.workers} process{'es' if found.workers > 1 else ''}"
        row("time", f"{duration(found.seconds)}, {rate:,.0f} images/s with {workers}")
    row("check", f"minialex store check {place}")
    if store.read_manifest(place).size == 256:
        row("train", f"minialex train --recipe alexnet-2012 --data {place}")


def _see(place: Path, name: str, counts: dict[str, int]) -> str:
    return f"; see {place / name}" if counts else ""


def bench(place: str, recipe_name: str, changes: dict[str, Any], json: Path | None) -> None:
    """Time the loader on a data set, as training with a recipe would use it."""
    if json is not None and not json.absolute().parent.is_dir():
        raise ConfigurationError(f"cannot write {json}: there is no folder {json.parent}")
    recipe = load_recipe(recipe_name).replace(**changes)
    screen = Console(soft_wrap=True)
    with metered(screen) as meter:
        found = bench_data(
            place,
            recipe.batch_size,
            BENCH_SECONDS,
            threads=recipe.loader_threads,
            seed=recipe.seed,
            progress=lambda images: meter.tell("reading", images, None),
        )
    images = f"{found['images']:,} images in {found['seconds']:.1f} s"
    checked = f", {found['first_readings']:,} of them compared with their checksums" if found["first_readings"] else ""
    for label, text in (
        ("data", f"{found['data']}: {found['images_in_set']:,} training images of {found['image_size']} x "
                 f"{found['image_size']}, {readable_size(found['bytes_in_set'])}"),
        ("read", f"{images}, shuffled, batches of {found['batch_size']}, {found['threads']} threads{checked}"),
        ("rate", f"{found['images_per_second']:,.0f} images/s, {found['megabytes_per_second']:,.0f} MB/s; the longest "
                 f"wait for a batch was {found['slowest_batch_seconds']:.3f} s"),
    ):  # fmt: skip
        screen.print(f"{label:<12}{text}", highlight=False, markup=False)
    if json is not None:
        write_json(json, {**found, **machine.describe()})
        screen.print(f"figures     {json}", highlight=False, markup=False)


def check(place: Path) -> int:
    """Verify a store; returns 0 if it is sound.

    Raises:
        DataError: it is damaged; what is wrong was printed
    """
    screen = Console(soft_wrap=True)
    began = time.monotonic()
    with metered(screen) as meter:
        damages = store.check(place, progress=lambda done, total: meter.tell("checking", done, total))
    if damages:
        for damage in damages[:_SHOWN]:
            where = f", byte {damage.offset:,}" if damage.offset >= 0 else ""
            screen.print(f"{damage.file}{where}: {damage.what}", highlight=False, markup=False)
        if len(damages) > _SHOWN:
            screen.print(f"… and {len(damages) - _SHOWN:,} more", highlight=False)
        first = damages[0]
        where = f" at byte {first.offset:,}" if first.offset >= 0 else ""
        raise DataError(f"{place}: damaged in {len(damages):,} place{'s' if len(damages) > 1 else ''}, first in "
                        f"{first.file}{where}; prepare it again into a new folder.")  # fmt: skip
    manifest = store.read_manifest(place)
    count = sum(manifest.count(part) for part in store.PARTS)
    size = readable_size(count * 3 * manifest.size**2)
    screen.print(f"{place}: sound, {count:,} images, {size}, {duration(time.monotonic() - began)}", highlight=False)
    return 0
