"""Make a store from archives, a folder or a list, in one parallel pass that can be stopped and resumed.

First the source is listed, one line per image, into a folder ``prepare`` inside the store; for 1.3 million images this
takes a minute or two. Then every shard is made separately, by whichever process is free: read, decode, scale, crop,
write, and sum for the mean image and the covariance. A process holds `_BLOCK` images at a time, however large the set.

A shard's images depend only on the list, sums are integers, and files get their final names when they are complete. So
however often preparing is killed, and with however many processes, the store has the same bytes.

An unusable image is left out and listed in ``left-out.tsv``; an unusual one (grey, CMYK, rotated, misnamed …) is listed
in ``treated.tsv``.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minialex.data.dataset import LeftOut
from minialex.data.images import RESIZES, decode
from minialex.data.sets.folder import validation_part
from minialex.data.sets.listing import Entry, Listing, Source, in_short, plain_name
from minialex.data.statistics import Sums
from minialex.data.store import sources, store
from minialex.data.store.store import PARTS
from minialex.errors import ConfigurationError, DataError, MinialexError, ResourceError, nearest
from minialex.ranks.group import ALONE, Group, by_first
from minialex.ranks.watch import doing
from minialex.screen.quiet import quiet_decoders
from minialex.storage import atomic, safetensors
from minialex.storage.locks import locked_folder

WORK = "prepare"
_PLAN, _SUMS, _SKIPPED = "plan.json", "sums.safetensors", "skipped.jsonl"
_BLOCK = 32  # images that a process holds at a time
_SMALLEST, _LARGEST, _SHARDS = 64, 2048, 64  # images per shard: a 64th of the part, within these bounds

Progress = Callable[[str, int, int | None], None]
"""Called with the stage (``"listing"``, ``"preparing"``), the number of images done, and the total if known."""


class Stopped(Exception):
    """Preparing was stopped on request; the same call continues it."""


class Request(NamedTuple):
    """What a store is made from, and how: continuing requires the same."""

    source: str  # this and the next two are full paths, or empty
    validation: str
    words: str
    size: int  # height and width of the images
    resize: str  # how images are made square
    decoder: str  # versions of the libraries that determine an image's pixels


@dataclass(frozen=True)
class Plan:
    """What is being made; written once the source has been listed."""

    request: Request
    name: str  # of the data set, like its classes and their words
    class_names: tuple[str, ...]
    words: tuple[str, ...]
    counts: dict[str, int]  # lines of the list, by part
    sha256: dict[str, str]  # of the lists, by part
    listed: str  # SHA-256 of the source's own list
    notes: tuple[str, ...] = ()  # how the source was understood


@dataclass(frozen=True)
class Summary:
    """What was made of a source."""

    images: dict[str, int]  # by part
    classes: int
    left_out: dict[str, int]  # number of files, by short reason
    treated: dict[str, int]
    missing: tuple[str, ...]  # classes without a training image
    decoded: int  # images decoded by this call, in `seconds` by `workers` processes
    seconds: float
    workers: int
    already: bool  # whether the store was already complete
    notes: tuple[str, ...] = ()  # how the source was understood, or what has changed in it since


def decoder() -> str:
    """Versions of the libraries that determine an image's pixels."""
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
    resize: str = "one-step",
    validation: str | None = None,
    words: str | None = None,
    workers: int | None = None,
    progress: Progress = lambda what, done, total: None,
    stop: Callable[[], bool] = lambda: False,
    group: Group = ALONE,
) -> Summary:
    """Make a store, or continue making one.

    Args:
        source, validation, words: see `minialex.data.store.sources.find`
        place: the store's folder: new, empty, or begun by the same call
        size: height and width of the images
        resize: how images are made square, one of `minialex.data.images.RESIZES`
        workers: number of processes per rank; one per processor if None. One works in this process.
        stop: polled several times a second; if it returns true on any rank, work ends within an image and all ranks
            raise `Stopped`
        group: the ranks that share the shards; the folder, and everything that the source names, must be at the same
            paths for all

    Raises:
        Stopped: on request
        ConfigurationError: another store is being made there, or something else is there
        DataError: an unusable source, or a part without a usable image
        ResourceError: the disk is full, or a process was killed
    """
    if not 8 <= size <= 4096:
        raise ConfigurationError(f"size = {size} cannot be used; use 8 to 4096 pixels.")
    if resize not in RESIZES:
        raise ConfigurationError(f"resize = '{resize}'; use one of {', '.join(RESIZES)}.{nearest(resize, RESIZES)}")
    folder = Path(place).expanduser()
    request = Request(_absolute(source), _absolute(validation), _absolute(words), size, resize, decoder())
    workers = workers or os.cpu_count() or 1
    began = time.monotonic()
    plan: Plan | None = None
    with ExitStack() as held:

        def begin() -> dict[str, Any]:
            """What the first rank does before any shards are made, and tells all ranks."""
            nonlocal plan
            if store.is_store(folder):
                notes = _changes(folder, request)
                if (folder / WORK).exists():
                    atomic.remove_folder(folder / WORK)
                return {"already": notes}
            new = not folder.exists()
            atomic.make_folder(folder)
            try:
                refusal = f"{folder}: another process is preparing it; wait for it, or stop it."
                held.enter_context(locked_folder(folder, refusal))
                atomic.remove_stale(folder)
                begun = (folder / WORK).is_dir()
                plan = _read_plan(folder, request) if begun else _list(folder, request, progress, stop)
                if not Path(request.source).exists():  # else a store would silently become an empty one
                    raise DataError(
                        f"{source}: is no longer there; the store has been begun and can continue once it is back."
                    )
                return {"plan": plan.sha256, "finished": _sums_as_one(folder, plan)}
            except Stopped:
                if group.size == 1:
                    raise
                return {"stopped": True}
            except MinialexError:
                if new and not any(folder.iterdir()):  # nothing was begun: leave nothing behind
                    folder.rmdir()
                raise

        with doing("listing the images"):
            told = by_first(group, begin)
        if "stopped" in told:
            raise Stopped
        if "already" in told:
            return _summary(folder, 0, 0.0, workers, already=True, notes=tuple(told["already"]))
        known = plan or _plan_of_all(folder, request, told["plan"], group.rank)
        decoded, processes = _make_shards(folder, known, told["finished"], workers, progress, stop, group)

        def end() -> dict[str, Any]:
            _finish(folder, known)
            seconds = time.monotonic() - began
            return asdict(_summary(folder, decoded, seconds, processes, already=False, notes=known.notes))

        made = by_first(group, end)
        return Summary(**made | {name: tuple(made[name]) for name in ("missing", "notes")})


PATIENCE = 40.0
"""Seconds within which every machine should see a new folder on a shared disk: NFS caches directories for 30."""


def _plan_of_all(folder: Path, request: Request, sha256: dict[str, str], rank: int) -> Plan:
    """The plan that the first rank made, as this rank finds it in the shared folder.

    Raises:
        ConfigurationError: It is missing, is a different one, or does not match this rank's request.
    """
    until = time.monotonic() + PATIENCE
    with doing(f"looking for {folder}"):
        while not (folder / WORK / _PLAN).exists() and time.monotonic() < until:
            time.sleep(0.2)
    if not (folder / WORK / _PLAN).exists():
        raise ConfigurationError(
            f"{folder.resolve()}: what rank 0 has begun there is not seen here; give a folder on a disk that all ranks "
            "share."
        )
    plan = _read_plan(folder, request)
    if plan.sha256 != sha256:
        raise ConfigurationError(f"{folder.resolve()}: is not rank 0's folder; give one that all ranks share.")
    if not Path(request.source).exists():
        raise DataError(f"{request.source}: is not there for rank {rank}; all ranks read it at the same path.")
    return plan


def _absolute(path: str | os.PathLike[str] | None) -> str:
    """The absolute path, valid wherever the command is run next; empty for none."""
    return "" if path is None else str(Path(path).expanduser().resolve())


def _list(folder: Path, request: Request, progress: Progress, stop: Callable[[], bool]) -> Plan:
    """List a source into the folder ``prepare``, which gets its name when it is complete."""
    others = [path.name for path in folder.iterdir() if not path.name.startswith(atomic.TEMPORARY)]
    if others:
        raise ConfigurationError(f"{folder}: holds '{others[0]}' and is not an unfinished store; give a new folder.")
    source = _source(folder, request)
    listed = hashlib.sha256()
    images = 0

    def lines(part: str, listing: Listing) -> Iterator[bytes]:
        nonlocal images
        for item in listing():
            if isinstance(item, LeftOut):
                skipped.append(json.dumps(item))
                continue
            listed.update(_identity(part, item))
            yield json.dumps(item).encode() + b"\n"
            images += 1
            if images % 500 == 0:
                progress("listing", images, None)
                if stop():
                    raise Stopped

    with atomic.translate_os_errors(folder / WORK), atomic.new_folder(folder / WORK) as work:
        skipped = atomic.LineFile(work / _SKIPPED)
        counts, sha256 = {}, {}
        for part, listing in (("train", source.train), ("validation", source.validation)):
            if listing is not None:
                _, sha256[part] = atomic.write_new(work / part, lines(part, listing))
                counts[part] = _count(work / part)
        skipped.sync()
        skipped.close()
        if source.validation is None:
            counts, sha256 = _keep_a_tenth(work, counts["train"], request.source)
        for part in PARTS:
            if not counts[part]:
                raise DataError(f"{request.source}: holds no {part} image.")
        notes = (*source.notes, *(("the test part is not in the store",) if source.test else ()))
        plan = Plan(request, source.name, source.class_names, source.words, counts, sha256, listed.hexdigest(), notes)
        atomic.write_json(work / _PLAN, {**asdict(plan), "request": request._asdict()})
        atomic.move_folder(work, folder / WORK)
    return plan


def _source(folder: Path, request: Request) -> Source:
    """The source of a store. Raises DataError: it is unusable, or has only one class."""
    source = sources.find(
        request.source, validation=request.validation or None, words=request.words or None, without=folder.resolve()
    )
    if len(source.class_names) == 1:
        raise DataError(f"{request.source}: contains only one class, '{source.class_names[0]}': there is nothing to "
                        "tell apart. Expected a folder for each class, with its images in it.")  # fmt: skip
    return source


def _identity(part: str, entry: Entry) -> bytes:
    """Identifies an image of a list, wherever the source is."""
    return f"{part}\t{entry.label}\t{entry.name}\t{entry.offset}\n".encode(errors="surrogateescape")


def _changes(folder: Path, request: Request) -> tuple[str, ...]:
    """Compare a complete store with the current request; return notes.

    The source is listed again, and its files' times are compared with the store's; files are not read.

    Raises:
        ConfigurationError: the store has another source or other settings, or its source has changed
    """
    found = store.read_manifest(folder)
    before = Request(found.source, found.validation, found.words_file, found.size, found.resize, request.decoder)
    if not found.source:  # the first format, which does not record the source
        before = request._replace(size=found.size, resize=found.resize)
        name = Path(request.source).stem if Path(request.source).is_file() else Path(request.source).name
        if found.name != plain_name(name):
            raise ConfigurationError(
                f"{folder}: is a store of '{found.name}', not of {request.source}; give a new folder."
            )
    _refuse_others(folder, "is a store that was made", before, request)
    if not Path(request.source).exists():
        return (f"{request.source} is no longer there: not compared",)
    if not found.listed:
        return ()
    listed = hashlib.sha256()
    newer, since, images = 0, (folder / store.MANIFEST).stat().st_mtime, 0
    source = _source(folder, request)
    seen = ""
    for part, listing in (("train", source.train), ("validation", source.validation)):
        for item in listing() if listing else ():
            if isinstance(item, Entry):
                listed.update(_identity(part, item))
                images += 1
                if item.path != seen and os.path.exists(item.path):
                    newer += os.stat(item.path).st_mtime > since
                    seen = item.path
    again = "prepare it into a new folder, or remove this one."
    if listed.hexdigest() != found.listed:
        held = f"the store holds {sum(map(found.count, PARTS)):,}, and {found.left_out:,} files were left out"
        raise ConfigurationError(f"{folder}: {request.source} has changed since the store was made: it lists "
                                 f"{images:,} images now; {held}; {again}")  # fmt: skip
    if newer:
        raise ConfigurationError(
            f"{folder}: {newer:,} of the files of {request.source} are newer than the store; {again}"
        )
    return ()


def _refuse_others(folder: Path, what: str, before: Request, now: Request) -> None:
    """Refuse to continue with other settings. Raises ConfigurationError: they differ; it names the first."""
    if now.source != before.source:
        raise ConfigurationError(f"{folder}: {what} of {before.source}, not of {now.source}: give a new folder.")
    options = ("--validation", "--words", "--size", "--resize", "decoder")
    for option, old, new in zip(options, before[1:], now[1:], strict=True):
        if new != old:
            raise ConfigurationError(f"{folder}: {what} with {option} {old or 'none'}, not {new or 'none'}: continue "
                                     "with the same, or give a new folder.")  # fmt: skip


def _count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _keep_a_tenth(work: Path, count: int, where: str) -> tuple[dict[str, int], dict[str, str]]:
    """Divide a list into training and validation, like `minialex.data.sets.folder`."""
    labels = np.zeros(count, np.int64)

    def names() -> Iterator[str]:
        with (work / "train").open("rb") as file:
            for number, line in enumerate(file):
                entry = Entry(*json.loads(line))
                labels[number] = entry.label
                yield entry.name

    chosen = validation_part(names(), labels, 0, where)
    counts, sha256 = {}, {}
    whole = work / "whole"
    os.rename(work / "train", whole)
    for part, wanted in (("train", ~chosen), ("validation", chosen)):
        with whole.open("rb") as file:
            rows = (line for line, belongs in zip(file, wanted, strict=True) if belongs)
            _, sha256[part] = atomic.write_new(work / part, rows)
        counts[part] = int(np.sum(wanted))
    whole.unlink()
    return counts, sha256


def _shard_size(count: int) -> int:
    """Images per shard: depends only on the number of images, so that the store does, too."""
    wanted = -(-count // _SHARDS)
    return min(max(-(-wanted // _SMALLEST) * _SMALLEST, _SMALLEST), _LARGEST)


def _read_plan(folder: Path, request: Request) -> Plan:
    """The plan of an unfinished store, if it matches the request."""
    path = folder / WORK / _PLAN
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        fields |= {"request": Request(**fields["request"])}
        plan = Plan(**fields | {name: tuple(fields[name]) for name in ("class_names", "words", "notes")})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); remove {folder} and start again.") from None
    _refuse_others(folder, "was begun", plan.request, request)
    for part in PARTS:
        with (folder / WORK / part).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != plan.sha256[part]:
                raise DataError(f"{folder / WORK / part}: damaged; remove {folder} and start again.")
    return plan


class Task(NamedTuple):
    """One shard to make: its lines begin at byte `begin` of the part's list."""

    folder: str
    part: str
    number: int
    begin: int
    images: int
    size: int
    resize: str


def _tasks(folder: Path, plan: Plan, part: str) -> Iterator[Task]:
    """All shards of a part."""
    begin = 0
    with (folder / WORK / part).open("rb") as file:
        for number in itertools.count():
            lines = list(itertools.islice(file, _shard_size(plan.counts[part])))
            if not lines:
                return
            yield Task(str(folder), part, number, begin, len(lines), plan.request.size, plan.request.resize)
            begin += sum(map(len, lines))


class _Worker:
    """What this process needs for making shards."""

    stop: Any = None  # an event that says to stop
    done: Any = None  # images done by each process; without a lock, which a killed process would keep
    slot: int = 0  # this process's element of `done`


def _begin(stop: Any, done: Any, slots: Any = None) -> None:
    """Set up a process; with `slots`, a counter, it is one of several."""
    _Worker.stop, _Worker.done, _Worker.slot = stop, done, 0
    if slots is not None:
        import signal

        quiet_decoders()  # only in a process of our own
        with slots.get_lock():
            _Worker.slot = slots.value
            slots.value += 1
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent decides
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End when the parent ends, since a killed parent cannot tell its children."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def make_shard(task: Task) -> tuple[Task, Sums | None]:
    """Read, decode, scale, crop and write the images of one shard; return the sums of training images.

    Raises:
        Stopped: on request; nothing is left behind
        ResourceError: the disk is full
    """
    folder = Path(task.folder)
    labels: list[int] = []
    crc32: list[int] = []
    names: list[str] = []
    left_out: list[tuple[str, str]] = []
    treated: list[tuple[str, str]] = []
    sums = Sums(task.size) if task.part == "train" else None

    def blocks() -> Iterator[NDArray[np.uint8]]:
        block = np.empty((_BLOCK, 3, task.size, task.size), np.uint8)
        filled = 0
        with (folder / WORK / task.part).open("rb") as lines:
            lines.seek(task.begin)
            for number in range(1, task.images + 1):
                entry = Entry(*json.loads(lines.readline()))
                if _Worker.stop.is_set():
                    raise Stopped
                try:
                    block[filled], notes = decode(entry.read(), task.size, entry.name, task.resize)
                except DataError as error:
                    left_out.append((entry.name, str(error)))
                else:
                    labels.append(entry.label)
                    crc32.append(zlib.crc32(block[filled]))
                    names.append(entry.name)
                    treated.extend((entry.name, note) for note in notes)
                    filled += 1
                _Worker.done[_Worker.slot] += 1
                if filled == _BLOCK or number == task.images:
                    yield block[:filled].reshape(-1)
                    if sums is not None:
                        sums.add(block[:filled])
                    filled = 0

    _, sha256 = atomic.write_stream(store.images_path(folder, task.part, task.number), blocks())
    arrays = np.array(labels, np.int64), np.array(crc32, np.uint32)
    index = store.Index(*arrays, tuple(names), tuple(left_out), tuple(treated), sha256)
    store.write_index(store.index_path(folder, task.part, task.number), index)
    return task, sums


def _make_shards(
    folder: Path, plan: Plan, before: dict[str, list[int]], workers: int, progress: Progress, stop: Callable[[], bool],
    group: Group,
) -> tuple[int, int]:  # fmt: skip
    """Make this rank's share of the missing shards, until all ranks have made theirs.

    Args:
        before: the existing shards, by part

    Returns:
        The number of images decoded, and the number of processes.
    """
    file = folder / WORK / (f"sums-{group.rank}.safetensors" if group.rank else _SUMS)
    sums, finished = _read_sums(file, plan)  # the others' do not exist yet: see `_sums_as_one`
    missing = [task for part in PARTS for task in _tasks(folder, plan, part) if task.number not in before[part]]
    tasks = missing[group.rank :: group.size]
    total = sum(plan.counts.values())
    already = total - sum(task.images for task in missing)
    workers = max(1, min(workers, len(tasks)))
    context = get_context("spawn") if workers > 1 else None
    event: Any = threading.Event() if context is None else context.Event()
    done: Any = [0] if context is None else context.RawArray("q", workers)
    every: list[list[Any]] = []  # per rank: images done, whether finished, whether asked to stop, processes

    def tell(ended: bool = False) -> bool:
        """Exchange progress with the other ranks, which may wait for it; return whether all are done."""
        every[:] = group.exchange([sum(done), ended, bool(stop()), workers])
        progress("preparing", already + sum(images for images, *_ in every), total)
        if any(asked for _, _, asked, _ in every):
            event.set()
            if group.size > 1:  # ranks with nothing left to do stop, too
                raise Stopped
        return all(ended for _, ended, *_ in every)

    progress("preparing", already, total)
    pool: Executor
    if context is None:
        pool = ThreadPoolExecutor(1, "minialex-prepare", _begin, (event, done))
    else:
        pool = ProcessPoolExecutor(workers, context, _begin, (event, done, context.Value("q", 0)))
    try:
        with _one_thread_each():
            waiting: set[Future[tuple[Task, Sums | None]]] = {pool.submit(make_shard, task) for task in tasks}
        told = time.monotonic()
        while not tell(not waiting):
            while waiting and time.monotonic() - told < 0.2:
                ready, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in ready:
                    task, of_shard = future.result()
                    if of_shard is not None:
                        sums.merge(of_shard)
                    finished[task.part].add(task.number)
                    _write_sums(file, sums, finished)
            told = time.monotonic()
    except BrokenProcessPool:
        raise ResourceError("a process that prepares images was killed, perhaps for lack of memory; run the same "
                            "command again to continue, with fewer --workers.") from None  # fmt: skip
    finally:
        event.set()  # stops the others if one failed
        pool.shutdown(wait=True, cancel_futures=True)
    return sum(images for images, *_ in every), sum(processes for *_, processes in every)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let processes started here use one thread for arithmetic, since there is one process per processor."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]
        os.environ.update(before)


def _write_sums(path: Path, sums: Sums, finished: dict[str, set[int]]) -> None:
    """Write the sums together with the list of shards in them."""
    by_part = _sorted(finished)
    state = {"images": sums.images, "products": sums.products.tolist(), "finished": by_part}
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    safetensors.write(path, {"pixels": sums.pixels, "state": text})


def _sorted(finished: dict[str, set[int]]) -> dict[str, list[int]]:
    return {part: sorted(finished[part]) for part in PARTS}


def _sums_as_one(folder: Path, plan: Plan) -> dict[str, list[int]]:
    """Merge all ranks' sums into the first one's file; return the finished shards, by part.

    After a kill in between, some sums exist twice: those of shards that are already in the first file are skipped.
    """
    sums, finished = _read_sums(folder / WORK / _SUMS, plan)
    others = sorted((folder / WORK).glob("sums-*.safetensors"))
    for path in others:
        more, shards = _read_sums(path, plan)
        if not all(shards[part] <= finished[part] for part in PARTS):
            sums.merge(more)
            finished = {part: finished[part] | shards[part] for part in PARTS}
    if others:
        _write_sums(folder / WORK / _SUMS, sums, finished)
    for path in others:
        path.unlink()
    return _sorted(finished)


def _read_sums(path: Path, plan: Plan) -> tuple[Sums, dict[str, set[int]]]:
    """The sums, and the finished shards."""
    sums = Sums(plan.request.size)
    if not path.exists():
        return sums, {part: set() for part in PARTS}
    try:
        arrays = safetensors.parse(path.read_bytes())
        state = json.loads(arrays["state"].tobytes())
        sums.images, sums.pixels = state["images"], arrays["pixels"]
        sums.products = np.array(state["products"], object)
        return sums, {part: set(state["finished"][part]) for part in PARTS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); remove {path.parents[1]} and start again.") from None


def _finish(folder: Path, plan: Plan) -> None:
    """Write the files about the whole store, ``store.json`` last."""
    shards: dict[str, tuple[store.Shard, ...]] = {}
    left_out, treated = _count(folder / WORK / _SKIPPED), 0
    for part in PARTS:
        of_part = []
        for index, sha256 in _indexes(folder, plan, part):
            of_part.append(store.Shard(len(index.labels), index.sha256, sha256))
            left_out += len(index.left_out)
            treated += len({name for name, _ in index.treated})
        shards[part] = tuple(of_part)
        if not sum(shard.images for shard in of_part):
            reason = ": ".join(next(_indexes(folder, plan, part))[0].left_out[0])
            raise DataError(f"{plan.request.source}: not one {part} image could be used; {reason}")
    _sums_as_one(folder, plan)
    sums, _ = _read_sums(folder / WORK / _SUMS, plan)
    sha256s = {store.STATISTICS: store.write_statistics(folder, sums.statistics())}
    for name in (store.LEFT_OUT, store.TREATED):
        _, sha256s[name] = atomic.write_stream(folder / name, _notes(folder, plan, name))
    notes = (left_out, treated, plan.request.decoder)
    request = plan.request
    made_from = (request.resize, request.source, request.validation, request.words, plan.listed)
    manifest = store.Manifest(
        plan.name, request.size, plan.class_names, plan.words, shards, sha256s, *notes, *made_from
    )
    store.write_manifest(folder, manifest)
    atomic.remove_folder(folder / WORK)
    atomic.remove_stale(folder)


def _indexes(folder: Path, plan: Plan, part: str) -> Iterator[tuple[store.Index, str]]:
    """The indexes of a part's shards, and the SHA-256 of their files."""
    for number in range(-(-plan.counts[part] // _shard_size(plan.counts[part]))):
        yield store.read_index(store.index_path(folder, part, number))


def _notes(folder: Path, plan: Plan, name: str) -> Iterator[bytes]:
    """The lines of ``left-out.tsv`` or ``treated.tsv``."""

    def row(*cells: str) -> bytes:
        return "\t".join(" ".join(cell.split()) for cell in cells).encode(errors="replace") + b"\n"

    yield row("part", "file", "reason" if name == store.LEFT_OUT else "treated as")
    if name == store.LEFT_OUT:
        with (folder / WORK / _SKIPPED).open("rb") as file:
            for line in file:
                yield row("source", *json.loads(line))
    for part in PARTS:
        for index, _ in _indexes(folder, plan, part):
            for image, note in index.left_out if name == store.LEFT_OUT else index.treated:
                yield row(part, image, note)


def _summary(
    folder: Path, decoded: int, seconds: float, workers: int, *, already: bool, notes: tuple[str, ...]
) -> Summary:
    """The summary of ``store.json`` and the two lists."""
    manifest = store.read_manifest(folder)
    seen = set(store.StoreSplit(folder, "train", manifest).labels.tolist())
    missing = tuple(name for label, name in enumerate(manifest.class_names) if label not in seen)
    images = {part: manifest.count(part) for part in PARTS}
    left_out, treated = (_reasons(folder / name) for name in (store.LEFT_OUT, store.TREATED))
    return Summary(
        images, len(manifest.class_names), left_out, treated, missing, decoded, seconds, workers, already, notes
    )


def _reasons(path: Path) -> dict[str, int]:
    """Count a list's lines by their last cell."""
    with path.open(encoding="utf-8") as file:
        next(file)
        return in_short(line.rstrip("\n").rpartition("\t")[2] for line in file)
