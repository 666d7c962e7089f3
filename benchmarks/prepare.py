"""Time what stands between photographs and training: decoding, preparing, reading back.

    python benchmarks/prepare.py decode PHOTOS      decoders, each alone and followed by scaling, on one core
    python benchmarks/prepare.py prepare PHOTOS     `minialex prepare` of a list that repeats the photographs
    python benchmarks/prepare.py loader FOLDER --gigabytes 20
                                                    makes a synthetic store of that size in FOLDER, empties its page
                                                    cache, reads it in shuffled batches, checks it, removes it

    python benchmarks/prepare.py try PHOTOS         the whole way on some photographs, with the paper's network
    python benchmarks/prepare.py docs docs          the figures into docs/imagenet.md; a test compares them

PHOTOS is a folder of JPEGs. Each writes its part of ``benchmarks/results/prepare.json`` (machine, versions, command,
date). Decoding is timed in processor seconds, so that other work on the machine does not matter; the best of five.
simplejpeg, OpenCV and PyTurboJPEG take part where they are installed. For a store that is larger than memory, limit
the memory of the process, page cache included, with a control group; the limit is recorded.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.metadata
import io
import itertools
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from minialex.data.images import decode
from minialex.data.statistics import Sums
from minialex.data.store import prepare, store
from minialex.speed import machine
from minialex.speed.loading import bench_data
from minialex.storage import atomic

RESULTS = Path(__file__).resolve().parent / "results" / "prepare.json"
SIZE = 256
REPEATS = 12  # of the photographs in the list that is prepared


def record(part: str, found: Any) -> None:
    """Write one part of the result file."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    names = ("numpy", "pillow", "simplejpeg", "opencv-python-headless", "PyTurboJPEG", "safetensors")
    versions = {"python": platform.python_version(), "libjpeg-turbo of Pillow": features.version("libjpeg_turbo")}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    results[part] = {
        "command": "python benchmarks/prepare.py " + " ".join(sys.argv[1:]),
        "machine": f"{machine.processor()}, {os.cpu_count()} cores",
        "versions": versions,
        "date": datetime.date.today().isoformat(),
        "load_average": os.getloadavg()[1],  # over five minutes: what else the machine was doing
        "found": found,
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def rates(works: dict[str, Callable[[bytes], Any]], data: list[bytes]) -> dict[str, float]:
    """Images a processor second, the best of five; all in turn, so that a disturbance meets all."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(5):
        for name, work in works.items():
            began = time.process_time()
            for item in data:
                work(item)
            best[name] = min(best[name], time.process_time() - began)
    return {name: len(data) / seconds for name, seconds in best.items()}


def decoders() -> dict[str, Callable[[bytes], Any]]:
    """Every installed way to decode a JPEG to pixels."""

    def pillow(data: bytes) -> Image.Image:
        image = Image.open(io.BytesIO(data))
        image.load()
        return image

    found: dict[str, Callable[[bytes], Any]] = {"Pillow": pillow}
    try:
        import simplejpeg

        found["simplejpeg"] = lambda data: simplejpeg.decode_jpeg(data, "RGB")
    except ImportError:
        pass
    try:
        from turbojpeg import TJPF_RGB, TurboJPEG

        turbo = TurboJPEG()
        found["PyTurboJPEG"] = lambda data: turbo.decode(data, pixel_format=TJPF_RGB)
    except (ImportError, RuntimeError, OSError):
        pass
    try:
        import cv2

        cv2.setNumThreads(1)
        found["OpenCV"] = lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except ImportError:
        pass
    return found


def time_decoding(photos: Path) -> None:
    """Decoders alone; then what minialex does with a file, with and without simplejpeg."""
    paths = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpeg", ".jpg"))
    data = [path.read_bytes() for path in paths]
    shapes = [Image.open(io.BytesIO(item)).size for item in data]

    def draft(item: bytes) -> Image.Image:
        image = Image.open(io.BytesIO(item))
        image.draft("RGB", (SIZE, SIZE))
        image.load()
        return image

    def without(item: bytes) -> Any:
        sys.modules["simplejpeg"] = None  # type: ignore[assignment]
        try:
            return decode(item, SIZE)
        finally:
            del sys.modules["simplejpeg"]

    alone = rates({**decoders(), "Pillow, draft mode down to 256": draft}, data)
    whole = rates({"with simplejpeg": lambda item: decode(item, SIZE), "with Pillow alone": without}, data)
    record(
        "decode",
        {
            "photographs": len(data),
            "mean_bytes": float(np.mean([len(item) for item in data])),
            "mean_megapixels": float(np.mean([w * h for w, h in shapes]) / 1e6),
            "decoding_alone_images_per_core_second": alone,
            "decoding_scaling_cutting_images_per_core_second": whole,
        },
    )


def time_preparing(photos: Path) -> None:
    """The command's own work, from files to a finished store, with one process and with one a processor."""
    paths = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpeg", ".jpg"))
    found: dict[str, Any] = {"images": len(paths) * REPEATS}
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "list.txt"
        lines = (f"{path} {i % 10}\n" for i, path in enumerate(itertools.chain(*[paths] * REPEATS)))
        listed.write_text("".join(lines), encoding="utf-8")
        for workers in sorted({1, os.cpu_count() or 1}):
            before = os.times()
            summary = prepare.prepare(listed, Path(folder) / f"store{workers}", workers=workers)
            after = os.times()
            used = sum(after[:4]) - sum(before[:4])  # this process and its children, in user and system mode
            found[f"{workers} process{'es' if workers > 1 else ''}"] = {
                "images_per_second": summary.decoded / summary.seconds,
                "images_per_core_second": summary.decoded / used,
            }
    record("prepare", found)


def synthetic(folder: Path, count: int) -> None:
    """A sound store of `count` different training images (noise is enough: reading does not look at them)."""
    rng = np.random.default_rng(0)
    pool = rng.integers(0, 256, (64, 3, SIZE, SIZE), dtype=np.uint8)
    sums = Sums(SIZE)
    sums.add(pool)
    shards: dict[str, tuple[store.Shard, ...]] = {}
    atomic.make_folder(folder)
    for part, images in (("train", count), ("validation", 64)):
        made = []
        for number, first in enumerate(range(0, images, 2048)):
            rows = min(2048, images - first)
            crc: list[int] = []

            def blocks(first: int = first, rows: int = rows, crc: list[int] = crc) -> Iterator[NDArray[np.uint8]]:
                for i in range(first, first + rows):
                    image = pool[i % 64] ^ np.uint8(i // 64 % 256)  # each differs
                    image[0, 0, :8] = np.frombuffer(int(i).to_bytes(8, "little"), np.uint8)
                    crc.append(zlib.crc32(image))
                    yield image.reshape(-1)

            _, sha256 = atomic.write_stream(store.images_path(folder, part, number), blocks())
            names = tuple(str(i) for i in range(first, first + rows))
            labels = np.arange(first, first + rows, dtype=np.int64) % 1000
            index = store.Index(labels, np.array(crc, np.uint32), names, (), (), sha256)
            path = store.index_path(folder, part, number)
            store.write_index(path, index)
            made.append(store.Shard(rows, sha256, store.read_index(path)[1]))
        shards[part] = tuple(made)
    store.write_statistics(folder, sums.statistics())
    for name in (store.LEFT_OUT, store.TREATED):
        atomic.write_text(folder / name, "part\tfile\twhat\n")
    hashes = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (store.STATISTICS, store.LEFT_OUT, store.TREATED)
    }
    classes = tuple(f"class{i}" for i in range(1000))
    store.write_manifest(folder, store.Manifest("synthetic", SIZE, classes, (), shards, hashes, 0, 0, "noise"))


def forget(folder: Path) -> None:
    """Empty the page cache of a store."""
    for path in folder.glob("*.images"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def memory_limit() -> int | None:
    """Bytes that this process may use, page cache included, if a control group says so."""
    try:
        group = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in line)
        place = Path("/sys/fs/cgroup/memory", group.rpartition(":")[2].lstrip("/"))
        limit = int((place / "memory.limit_in_bytes").read_text())
        return limit if limit < 1 << 50 else None
    except (OSError, StopIteration, ValueError):
        return None


def anonymous() -> int:
    """Bytes of memory of this process that are no file's pages."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024


def disk_rate(folder: Path) -> float:
    """Megabytes a second of one shard read from end to end, its page cache empty: what the disk gives."""
    forget(folder)
    path = store.images_path(folder, "train", 0)
    began = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.read(8 << 20):
            pass
    return path.stat().st_size / (time.perf_counter() - began) / 1e6


def time_loading(folder: Path, gigabytes: float, keep: bool) -> None:
    """A store of that size, made, read and checked."""
    count = int(gigabytes * 1e9 / (3 * SIZE**2))
    place = folder / "synthetic-store"
    needed = count * 3 * SIZE**2
    if shutil.disk_usage(folder).free < 1.2 * needed:
        sys.exit(f"{folder}: {needed / 1e9:.0f} GB are needed there")
    try:
        if not store.is_store(place):
            synthetic(place, count)
        found: dict[str, Any] = {"gigabytes": needed / 1e9, "memory_limit": memory_limit()}
        found["disk_megabytes_per_second"] = disk_rate(place)
        before = anonymous()
        runs = found["runs"] = []
        for threads in (1, 2, 4):
            forget(place)
            runs.append({"cache": "empty", **bench_data(str(place), 128, 60.0, threads=threads, most=count // 4)})
        forget(place)
        whole = bench_data(str(place), 128, 600.0, threads=4, most=count - count % 128)
        runs.append({"cache": "empty, one whole epoch", **whole})
        found["anonymous_megabytes_grown"] = (anonymous() - before) / 1e6
        forget(place)
        began = time.perf_counter()
        assert store.check(place) == []
        found["check_megabytes_per_second"] = needed / (time.perf_counter() - began) / 1e6
        record("loader", found)
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)


def try_all(photos: Path) -> None:
    """Prepare, check, train some steps of the whole network, evaluate, predict: what each command says."""
    found: list[dict[str, Any]] = []
    minialex = shutil.which("minialex") or sys.exit("minialex is not installed here")
    with tempfile.TemporaryDirectory() as folder:

        def run(*words: str, stop: bool = False) -> None:
            """Run a command; with `stop`, press Ctrl-C once it has said twice how much time is left."""
            process = subprocess.Popen(
                [minialex, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder
            )
            out = []
            assert process.stdout is not None
            for line in process.stdout:
                out.append(line.rstrip().replace(str(photos), "PHOTOS"))
                if stop and sum(" left" in each for each in out) == 2:
                    process.send_signal(signal.SIGINT)
                    stop = False
            command = " ".join(["minialex", *words]).replace(str(photos), "PHOTOS")
            found.append({"command": command, "exit_code": process.wait(), "output": out})

        run("prepare", str(photos), "store")
        run("store", "check", "store")
        run("train", "--recipe", "alexnet-2012", "--data", "store", "--batch-size", "16", "--out", "run", stop=True)
        run("evaluate", "run")
        run("predict", "run", str(min(photos.rglob("*.JPEG"))))
    record("try", found)


def tables(results: dict[str, Any]) -> dict[str, str]:
    """What goes between the marks of docs/imagenet.md."""
    decoding, preparing, loading = (results[part]["found"] for part in ("decode", "prepare", "loader"))

    def where(part: str) -> str:
        versions = results[part]["versions"]
        shown = ", ".join(f"{name} {versions[name]}" for name in ("pillow", "simplejpeg", "numpy") if name in versions)
        command = machine.anywhere(results[part]["command"])
        return (
            f"(`{command}`; {results[part]['machine']}; Python {versions['python']}, {shown}; {results[part]['date']})"
        )

    alone = decoding["decoding_alone_images_per_core_second"]
    whole = decoding["decoding_scaling_cutting_images_per_core_second"]
    parallel = {name: value for name, value in preparing.items() if name != "images"}
    one = parallel["1 process"]["images_per_core_second"]
    gain = whole["with simplejpeg"] / whole["with Pillow alone"] - 1
    rates = [
        f"{decoding['photographs']} ImageNet photographs of {decoding['mean_megapixels']:.2f} megapixels and "
        f"{decoding['mean_bytes'] / 1e3:.0f} kB each, in images per second of one processor:",
        "",
        "| work | images/s and core |",
        "|---|---|",
        *(f"| decode: {name} | {value:.0f} |" for name, value in alone.items()),
        *(f"| decode, scale, cut: minialex {name} | {value:.0f} |" for name, value in whole.items()),
        *(
            f"| all of `minialex prepare`, {name} | {value['images_per_core_second']:.0f} |"
            for name, value in parallel.items()
        ),
        "",
        f"So the 1,331,167 images take {1_331_167 / one / 3600:.1f} hours of one such core, divided by the number of "
        "cores: processes need nothing from each other. minialex decodes with simplejpeg, the quickest here, which "
        f"makes the whole {gain:.0%} faster than Pillow alone; scaling costs nearly as much as decoding. Both give the "
        "same bytes, but only simplejpeg says when the data are damaged. Draft mode down to 256 would not pay: few of "
        "these photographs are twice as large as that.",
        "",
        where("decode"),
        "",
        where("prepare"),
        "",
        f"Reading back, shuffled, in batches of 128: a store of {loading['gigabytes']:.0f} GB, read by a process that "
        f"may use {(loading['memory_limit'] or 0) / 1e9:.0f} GB of memory, page cache included. One file read from end "
        f"to end gave {loading['disk_megabytes_per_second']:.0f} MB/s.",
        "",
        "| loader threads | images | images/s | MB/s | longest wait for a batch |",
        "|---|---|---|---|---|",
    ]
    for run in loading["runs"]:
        threads = f"{run['threads']}, a whole epoch" if "epoch" in run["cache"] else f"{run['threads']}"
        rates.append(
            f"| {threads} | {run['images']:,} | {run['images_per_second']:,.0f} | "
            f"{run['megabytes_per_second']:,.0f} | {run['slowest_batch_seconds']:.2f} s |"
        )
    rates += [
        "",
        "Every image was compared with its checksum. `minialex store check` read "
        f"{loading['check_megabytes_per_second']:.0f} MB/s. Other work shared the two processors meanwhile: these are "
        "rates on the clock, unlike those above, and a free machine is faster.",
        "",
        where("loader"),
        "",
    ]
    train = next(entry for entry in results["try"]["found"] if entry["command"].startswith("minialex train"))
    note = "This machine had other work to do at the same time, so a free one is faster."
    said = ["```text", f"$ {train['command']}", *train["output"], "```", "", note, where("try"), ""]
    return {"rates": "\n".join(rates), "try": "\n".join(said)}


def with_tables(text: str, results: dict[str, Any]) -> str:
    """A page with the figures between its marks."""
    for name, table in tables(results).items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
        before, _, rest = text.partition(begin)
        text = before + begin + table + end + rest.partition(end)[2]
    return text


def write_docs(folder: Path) -> None:
    """Put the recorded figures into docs/imagenet.md."""
    page = folder / "imagenet.md"
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    page.write_text(with_tables(page.read_text(encoding="utf-8"), results), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("decode", "prepare", "loader", "try", "docs"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--keep", action="store_true", help="leave the synthetic store there")
    given = parser.parse_args()
    if given.what == "loader":
        time_loading(given.folder, given.gigabytes, given.keep)
    else:
        work = {"decode": time_decoding, "prepare": time_preparing, "try": try_all, "docs": write_docs}
        work[given.what](given.folder)


if __name__ == "__main__":
    main()
