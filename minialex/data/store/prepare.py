"""Make a store from archives, a folder or a list: one parallel pass that can be stopped and goes on.

First the source is listed, one line an image, into a folder ``prepare`` inside the store; a set of 1.3 million images
takes a minute or two. Then every shard is made by itself, by whichever process is free: read, decode, scale, cut,
write, and sum for the mean image and the covariance. A process holds `_BLOCK` images at a time, however large the set.

Which images are in a shard depends on the list alone, sums are whole numbers, and files get their final names when
they are whole. So however often it is killed, and with however many processes, the store has the same bytes.

An image that cannot be used is left out and listed in ``left-out.tsv``; one that was not as usual (grey, CMYK, turned,
misnamed …) is listed in ``treated.tsv``.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minialex.data.images import decode
from minialex.data.sets.folder import validation_part
from minialex.data.statistics import Sums
from minialex.data.store import sources, store
from minialex.data.store.store import PARTS
from minialex.errors import ConfigurationError, DataError, MinialexError, ResourceError
from minialex.storage import atomic

WORK = "prepare"
_PLAN, _SUMS, _SKIPPED = "plan.json", "sums.safetensors", "skipped.jsonl"
_BLOCK = 32  # images that a process holds at a time
_SMALLEST, _LARGEST, _SHARDS = 64, 2048, 64  # images of a shard: a 64th of the part, within these bounds

Progress = Callable[[str, int, int | None], None]
"""Told what is going on (``"listing"``, ``"preparing"``), how many images are done, and of how many, if known."""


class Stopped(Exception):
    """Preparing was stopped on request; the same call goes on."""


@dataclass(frozen=True)
class Plan:
    """What is being made; it is written when the source is listed and must be the same when preparing goes on.

    Attributes:
        source, validation, words, size: as given
        name, class_names, known_words: of the data set
        counts: lines of the list, by part
        shard: lines of a shard, by part
        listed: SHA-256 of the lists, by part
        made_with: versions of what decodes
    """

    source: str
    validation: str
    words: str
    size: int
    name: str
    class_names: tuple[str, ...]
    known_words: tuple[str, ...]
    counts: dict[str, int]
    shard: dict[str, int]
    listed: dict[str, str]
    made_with: str


@dataclass(frozen=True)
class Summary:
    """What became of a source.

    Attributes:
        images: by part
        classes: how many
        left_out, treated: how many files, by reason in short
        missing: classes without a training image
        decoded: images that this call decoded, in `seconds` by `workers` processes
        already: whether the store was whole before
    """

    images: dict[str, int]
    classes: int
    left_out: dict[str, int]
    treated: dict[str, int]
    missing: tuple[str, ...]
    decoded: int
    seconds: float
    workers: int
    already: bool


def made_with() -> str:
    """Versions of the libraries that decide which pixels an image becomes."""
    from importlib.metadata import PackageNotFoundError, version

    from PIL import features

    try:
        jpeg = f"simplejpeg {version('simplejpeg')}"
    except PackageNotFoundError:
        jpeg = f"libjpeg-turbo {features.version('libjpeg_turbo')}"
    return f"Pillow {version('pillow')}, {jpeg}"


def prepare(
    source: str | os.PathLike[str],
    place: str | os.PathLike[str],
    *,
    size: int = 256,
    validation: str | None = None,
    words: str | None = None,
    workers: int | None = None,
    progress: Progress = lambda what, done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> Summary:
    """Make a store, or go on making one.

    Args:
        source, validation, words: see `minialex.data.store.sources.find`
        place: the store's folder; new, empty, or begun by the same call
        size: height and width of the images
        workers: processes; one a processor if None. One works in this process.
        stop: asked several times a second; where it says yes, work ends within an image and `Stopped` is raised

    Raises:
        Stopped: on request
        ConfigurationError: another store is being made there, or something else is there
        DataError: a source that cannot be used, or a part without a usable image
        ResourceError: a disk that is full, or a process that was killed
    """
    if not 8 <= size <= 4096:
        raise ConfigurationError(f"size = {size} cannot be used; use 8 to 4096 pixels.")
    folder = Path(place).expanduser()
    workers = workers or os.cpu_count() or 1
    began = time.monotonic()
    if store.is_store(folder):
        known = store.read_manifest(folder).size
        if known != size:
            raise ConfigurationError(f"{folder}: is a store of {known} x {known} pixels; give a new folder.")
        if (folder / WORK).exists():
            atomic.remove_folder(folder / WORK)
        return _summary(folder, 0, 0.0, workers, already=True)
    new = not folder.exists()
    atomic.make_folder(folder)
    try:
        with _only_one(folder):
            atomic.remove_stale(folder)
            given = (_absolute(source), _absolute(validation), _absolute(words), size)
            plan = _read_plan(folder, given) if (folder / WORK).is_dir() else _list(folder, given, progress, stop)
            _check_root(plan)
            decoded = _make_shards(folder, plan, workers, progress, stop)
            _finish(folder, plan)
    except MinialexError:
        if new and not any(folder.iterdir()):  # nothing was begun: leave nothing
            folder.rmdir()
        raise
    return _summary(folder, decoded, time.monotonic() - began, workers, already=False)


def _absolute(path: str | os.PathLike[str] | None) -> str:
    """The path from wherever the command is run the next time; empty for none."""
    return "" if path is None else str(Path(path).expanduser().resolve())


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the lock of the store's folder."""
    if os.name != "posix":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if atomic.try_lock(descriptor) is False:
            raise ConfigurationError(f"{folder}: another process is preparing it; wait for it, or stop it.")
        yield
    finally:
        os.close(descriptor)


def _check_root(plan: Plan) -> None:
    """Without its source, a store would quietly become an empty one."""
    if not Path(plan.source).expanduser().exists():
        raise DataError(f"{plan.source}: is not there any more; the store is begun and can go on when it is.")


# ---------------------------------------------------------------- the list


def _list(folder: Path, given: tuple[str, str, str, int], progress: Progress, stop: Callable[[], bool]) -> Plan:
    """List a source into the folder ``prepare``, which gets its name when it is whole."""
    others = [path.name for path in folder.iterdir() if not path.name.startswith(atomic.TEMPORARY)]
    if others:
        raise ConfigurationError(f"{folder}: holds '{others[0]}' and is no store that was begun; give a new folder.")
    place, validation, words, size = given
    source = sources.find(place, validation=validation or None, words=words or None)
    listed = 0

    def lines(listing: sources.Listing, skipped: Any) -> Iterator[bytes]:
        nonlocal listed
        for item in listing():
            if isinstance(item, sources.Skipped):
                skipped.append(json.dumps(item))
                continue
            yield _line(item)
            listed += 1
            if listed % 500 == 0:
                progress("listing", listed, None)
                if stop():
                    raise Stopped

    with atomic.translate_os_errors(folder / WORK), atomic.new_folder(folder / WORK) as work:
        skipped = atomic.LineFile(work / _SKIPPED)
        counts, sums = {}, {}
        for part, listing in (("train", source.train), ("validation", source.validation)):
            if listing is not None:
                _, sums[part] = atomic.write_new(work / part, lines(listing, skipped))
                counts[part] = _count(work / part)
        skipped.sync()
        skipped.close()
        if "validation" not in counts:
            counts, sums = _keep_a_tenth(work, counts["train"], place)
        for part in PARTS:
            if not counts[part]:
                raise DataError(f"{place}: holds no {part} image.")
        shard = {part: _shard_size(counts[part]) for part in PARTS}
        known = (source.name, source.class_names, source.words)
        plan = Plan(place, validation, words, size, *known, counts, shard, sums, made_with())
        atomic.write_json(work / _PLAN, asdict(plan))
        atomic.move_folder(work, folder / WORK)
    return plan


def _line(entry: sources.Entry) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _entry(line: bytes) -> sources.Entry:
    return sources.Entry(*json.loads(line))


def _count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _keep_a_tenth(work: Path, count: int, where: str) -> tuple[dict[str, int], dict[str, str]]:
    """Divide a list into training and validation, as `minialex.data.sets.folder` does it."""
    chosen = validation_part(count, 0, where)
    counts, sums = {}, {}
    whole = work / "whole"
    os.rename(work / "train", whole)
    for part, wanted in (("train", False), ("validation", True)):
        with whole.open("rb") as file:
            _, sums[part] = atomic.write_new(
                work / part, (line for line, kept in zip(file, chosen, strict=True) if kept == wanted)
            )
        counts[part] = int(np.sum(chosen == wanted))
    whole.unlink()
    return counts, sums


def _shard_size(count: int) -> int:
    """Images of a shard: a function of their number alone, so that the store is, too."""
    wanted = -(-count // _SHARDS)
    return min(max(-(-wanted // _SMALLEST) * _SMALLEST, _SMALLEST), _LARGEST)


def _read_plan(folder: Path, given: tuple[str, str, str, int]) -> Plan:
    """The plan of a store that was begun, if it is the one that is asked for."""
    path = folder / WORK / _PLAN
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        plan = Plan(**{**known, **{key: tuple(known[key]) for key in ("class_names", "known_words")}})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); remove {folder} and begin again.") from None
    now = {
        "source": given[0],
        "--validation": given[1],
        "--words": given[2],
        "--size": given[3],
        "decoder": made_with(),
    }
    then = (plan.source, plan.validation, plan.words, plan.size, plan.made_with)
    for (what, mine), theirs in zip(now.items(), then, strict=True):
        if mine != theirs:
            raise ConfigurationError(f"{folder}: was begun with {what} {theirs or 'none'}, not {mine or 'none'}: "
                                     "go on with the same, or give a new folder.")  # fmt: skip
    for part in PARTS:
        with (folder / WORK / part).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != plan.listed[part]:
                raise DataError(f"{folder / WORK / part}: damaged; remove {folder} and begin again.")
    return plan


# ---------------------------------------------------------------- shards


class Task(NamedTuple):
    """One shard to make: its lines begin at byte `begin` of the part's list."""

    folder: str
    part: str
    number: int
    begin: int
    images: int
    size: int


class Made(NamedTuple):
    """A shard that was made, and its sums, for the training part."""

    part: str
    number: int
    sums: Sums | None


def _tasks(folder: Path, plan: Plan, part: str) -> Iterator[Task]:
    """All shards of a part."""
    with (folder / WORK / part).open("rb") as file:
        begin = position = 0
        lines = number = 0
        for line in file:
            position += len(line)
            lines += 1
            if lines == plan.shard[part]:
                yield Task(str(folder), part, number, begin, lines, plan.size)
                begin, lines, number = position, 0, number + 1
        if lines:
            yield Task(str(folder), part, number, begin, lines, plan.size)


@dataclass
class _Worker:
    """What a process that makes shards was given.

    Attributes:
        stop: an event that says to stop
        done: how many images each process has done, without a lock, which a killed one would keep
        slot: this process's place there
    """

    stop: Any = None
    done: Any = None
    slot: int = 0


_worker = _Worker()


def _begin(stop: Any, done: Any, slots: Any = None) -> None:
    """Set a process up; with `slots`, a counter, it is one of several."""
    _worker.stop, _worker.done, _worker.slot = stop, done, 0
    if slots is not None:
        import signal

        with slots.get_lock():
            _worker.slot = slots.value
            slots.value += 1
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches all; the parent decides
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed tells nobody."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def make_shard(task: Task) -> Made:
    """Read, decode, scale, cut and write the images of one shard.

    Raises:
        Stopped: on request; nothing is left behind
        ResourceError: a disk that is full
    """
    folder = Path(task.folder)
    labels: list[int] = []
    sums: list[int] = []
    names: list[str] = []
    left_out: list[tuple[str, str]] = []
    treated: list[tuple[str, str]] = []
    total = Sums(task.size) if task.part == "train" else None

    def blocks() -> Iterator[NDArray[np.uint8]]:
        block = np.empty((_BLOCK, 3, task.size, task.size), np.uint8)
        filled = 0
        for entry in _entries(folder / WORK / task.part, task.begin, task.images):
            if _worker.stop is not None and _worker.stop.is_set():
                raise Stopped
            try:
                block[filled], notes = decode(entry.read(), task.size, entry.name)
            except DataError as error:
                left_out.append((entry.name, str(error)))
            else:
                labels.append(entry.label)
                sums.append(zlib.crc32(block[filled]))
                names.append(entry.name)
                treated.extend((entry.name, note) for note in notes)
                filled += 1
            if _worker.done is not None:
                _worker.done[_worker.slot] += 1
            if filled == _BLOCK:
                yield block
                if total is not None:
                    total.add(block)
                filled = 0
        yield block[:filled]
        if total is not None:
            total.add(block[:filled])

    chunks = (block.reshape(-1) for block in blocks())
    _, sha256 = atomic.write_stream(store.images_path(folder, task.part, task.number), chunks)
    index = store.Index(
        np.array(labels, np.int64), np.array(sums, np.uint32), tuple(names), tuple(left_out), tuple(treated), sha256
    )
    store.write_index(store.index_path(folder, task.part, task.number), index)
    return Made(task.part, task.number, total)


def _entries(path: Path, begin: int, count: int) -> Iterator[sources.Entry]:
    with path.open("rb") as file:
        file.seek(begin)
        for _ in range(count):
            yield _entry(file.readline())


def _make_shards(folder: Path, plan: Plan, workers: int, progress: Progress, stop: Callable[[], bool]) -> int:
    """Make the shards that are not there yet; returns the number of images that were decoded."""
    sums, finished = _read_sums(folder, plan)
    tasks, already = [], 0
    for part in PARTS:
        for task in _tasks(folder, plan, part):
            if task.number in finished[part]:
                already += task.images
            else:
                tasks.append(task)
    total = sum(plan.counts.values())

    def took(made: Made) -> None:
        if made.sums is not None:
            sums.merge(made.sums)
        finished[made.part].add(made.number)
        _write_sums(folder, sums, finished)

    workers = max(1, min(workers, len(tasks)))
    context = get_context("spawn")
    event, done = context.Event(), context.RawArray("q", workers)

    def tell() -> None:
        progress("preparing", already + sum(done), total)
        if stop():
            event.set()

    tell()
    if workers == 1:
        _here(tasks, event, done, tell, took)
    else:
        _parallel(tasks, workers, event, done, tell, took)
    tell()
    return sum(done)


def _here(tasks: list[Task], event: Any, done: Any, tell: Callable[[], None], took: Callable[[Made], None]) -> None:
    """Make shards in this process; a thread tells how far it is."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            tell()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    _begin(event, done)
    try:
        for task in tasks:
            took(make_shard(task))
    finally:
        _begin(None, None)
        over.set()
        watcher.join()


def _parallel(
    tasks: list[Task], workers: int, event: Any, done: Any, tell: Callable[[], None], took: Callable[[Made], None]
) -> None:
    """Make shards in processes of their own."""
    context = get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _begin, (event, done, context.Value("q", 0)))
    try:
        with _one_thread_each():
            waiting: set[Future[Made]] = {pool.submit(make_shard, task) for task in tasks}
        while waiting:
            ready, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in ready:
                took(future.result())
            tell()
    except BrokenProcessPool:
        raise ResourceError("a process that prepares images was killed, perhaps for want of memory; run the same "
                            "command again to go on, with fewer --workers.") from None  # fmt: skip
    finally:
        event.set()  # the others, where one failed
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that are started here use one thread for arithmetic: there is one of them a processor."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _write_sums(folder: Path, sums: Sums, finished: dict[str, set[int]]) -> None:
    """Write what is summed and which shards are in it, together."""
    from safetensors.numpy import save

    state = {
        "images": sums.images,
        "products": sums.products.tolist(),
        "finished": {part: sorted(finished[part]) for part in PARTS},
    }
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    atomic.write_bytes(folder / WORK / _SUMS, save({"pixels": sums.pixels, "state": text}))


def _read_sums(folder: Path, plan: Plan) -> tuple[Sums, dict[str, set[int]]]:
    """What is summed, and which shards are finished."""
    from safetensors.numpy import load

    sums = Sums(plan.size)
    path = folder / WORK / _SUMS
    if not path.exists():
        return sums, {part: set() for part in PARTS}
    try:
        arrays = load(path.read_bytes())
        state = json.loads(arrays["state"].tobytes())
        sums.images, sums.pixels = state["images"], arrays["pixels"]
        sums.products = np.array(state["products"], object)
        return sums, {part: set(state["finished"][part]) for part in PARTS}
    except Exception as error:  # safetensors has an exception of its own, which is no ValueError
        raise DataError(f"{path}: damaged ({error}); remove {folder} and begin again.") from None


# ---------------------------------------------------------------- the end


def _finish(folder: Path, plan: Plan) -> None:
    """Write what is known of the whole; ``store.json`` last."""
    shards: dict[str, tuple[store.Shard, ...]] = {}
    left_out = treated = 0
    for part in PARTS:
        found = []
        for number in range(-(-plan.counts[part] // plan.shard[part])):
            index, sha256 = store.read_index(store.index_path(folder, part, number))
            found.append(store.Shard(len(index.labels), index.sha256, sha256))
            left_out += len(index.left_out)
            treated += len({name for name, _ in index.treated})
        shards[part] = tuple(found)
        if not sum(shard.images for shard in found):
            raise DataError(f"{plan.source}: not one {part} image could be used; {_first_reason(folder, part)}")
    sums, _ = _read_sums(folder, plan)
    store.write_statistics(folder, sums.statistics())
    hashes = {store.STATISTICS: hashlib.sha256((folder / store.STATISTICS).read_bytes()).hexdigest()}
    _, hashes[store.LEFT_OUT] = atomic.write_stream(folder / store.LEFT_OUT, _left_out(folder, shards))
    _, hashes[store.TREATED] = atomic.write_stream(folder / store.TREATED, _treated(folder, shards))
    left_out += _count(folder / WORK / _SKIPPED)
    manifest = store.Manifest(
        plan.name, plan.size, plan.class_names, plan.known_words, shards, hashes, left_out, treated, plan.made_with
    )
    store.write_manifest(folder, manifest)
    atomic.remove_folder(folder / WORK)
    atomic.remove_stale(folder)


def _first_reason(folder: Path, part: str) -> str:
    index, _ = store.read_index(store.index_path(folder, part, 0))
    return ": ".join(index.left_out[0])


def _row(*cells: str) -> bytes:
    return "\t".join(" ".join(cell.split()) for cell in cells).encode(errors="replace") + b"\n"


def _left_out(folder: Path, shards: dict[str, tuple[store.Shard, ...]]) -> Iterator[bytes]:
    yield _row("part", "file", "reason")
    with (folder / WORK / _SKIPPED).open("rb") as file:
        for line in file:
            yield _row("source", *json.loads(line))
    for part in PARTS:
        for number in range(len(shards[part])):
            for name, reason in store.read_index(store.index_path(folder, part, number))[0].left_out:
                yield _row(part, name, reason)


def _treated(folder: Path, shards: dict[str, tuple[store.Shard, ...]]) -> Iterator[bytes]:
    yield _row("part", "file", "treated as")
    for part in PARTS:
        for number in range(len(shards[part])):
            for name, note in store.read_index(store.index_path(folder, part, number))[0].treated:
                yield _row(part, name, note)


def _summary(folder: Path, decoded: int, seconds: float, workers: int, *, already: bool) -> Summary:
    """What ``store.json`` and the two lists say."""
    manifest = store.read_manifest(folder)
    seen = np.zeros(len(manifest.class_names), np.bool_)
    seen[store.StoreSplit(folder, "train", manifest).labels] = True
    return Summary(
        {part: manifest.count(part) for part in PARTS},
        len(manifest.class_names),
        _reasons(folder / store.LEFT_OUT),
        _reasons(folder / store.TREATED),
        tuple(name for name, there in zip(manifest.class_names, seen, strict=True) if not there),
        decoded,
        seconds,
        workers,
        already,
    )


def _reasons(path: Path) -> dict[str, int]:
    """How many lines of a list have which last column, without what stands in brackets or after a colon."""
    counts: Counter[str] = Counter()
    with path.open(encoding="utf-8") as file:
        next(file)
        for line in file:
            counts[line.rstrip("\n").rpartition("\t")[2].partition(" (")[0].partition(":")[0].rstrip(".")] += 1
    return dict(counts.most_common())
