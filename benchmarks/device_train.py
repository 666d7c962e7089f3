"""Training for real, on a device and through the command line: what a user does, from photographs to a prediction.

    python benchmarks/device_train.py --photos .photos

1. Photographs (a folder a class) become a store; each is there `--copies` times, or an epoch would be two batches. The
   same photographs are the validation images: what is asked is whether the network learns them.
2. The paper's network is trained on them in bfloat16, from He's weights (with the paper's it takes some thousand steps
   before anything is learned), is stopped by SIGINT on the way, and goes on.
3. The run is evaluated, and one photograph is predicted.
4. `minialex train` of the README, with ``--backend``, once at a stretch, and once with both columns named on one device
   and a stop by SIGINT on the way: both must end with the same bits.

Everything is a process of its own, as a user's is; the last part goes on beside the others, since most of the time
kernels are compiled. Ends with 1 if a command fails, if the network has not learned its
photographs, or if bits differ. Without photographs only the last part is done, and that is said. The runs' metrics
and logs go to `--kept`, with all that the commands said.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

MOST_ERROR = 0.05  # of the photographs that the network was trained on
STOPPED = 130  # the exit code of a command that SIGINT has stopped


class Failed(Exception):
    """A command did not do what it must."""


class Commands:
    """Commands of minialex, one after the other or beside each other, and what they said."""

    def __init__(self, work: Path, kept: Path) -> None:
        self.work, self.kept = work, kept
        self.began = time.perf_counter()

    def say(self, text: str) -> None:
        """A line of progress, with the seconds since the beginning."""
        print(f"{time.perf_counter() - self.began:6.1f} s  {text}", flush=True)

    def begin(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command; what it says goes to a file of that name."""
        self.say(f"{name}: minialex {' '.join(arguments)}")
        with (self.kept / f"{name}.txt").open("wb") as said:
            command = [sys.executable, "-m", "minialex", *arguments]
            return subprocess.Popen(command, cwd=self.work, stdout=said, stderr=subprocess.STDOUT)

    def end(self, name: str, process: subprocess.Popen[bytes], expected: int = 0) -> str:
        """Wait for it, and give what it said."""
        code = process.wait()
        said = (self.kept / f"{name}.txt").read_text(encoding="utf-8", errors="replace")
        self.say(f"{name}: ended with {code}")
        if code != expected:
            raise Failed(f"{name} ended with {code} instead of {expected}:\n{said[-3000:]}")
        return said

    def run(self, name: str, *arguments: str) -> str:
        """Do a command."""
        return self.end(name, self.begin(name, *arguments))

    def stop(self, name: str, process: subprocess.Popen[bytes], run: Path, step: int) -> None:
        """Stop a training by SIGINT once it has come to a step."""
        while process.poll() is None and steps_of(run) < step:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        self.end(name, process, STOPPED)
        self.say(f"{name}: stopped by SIGINT at step {steps_of(run)}")


def metrics(run: Path) -> list[dict[str, Any]]:
    """What a run has recorded until now; a line that is still being written is left out."""
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def steps_of(run: Path) -> int:
    """How many steps a run has recorded."""
    return max((record["step"] for record in metrics(run) if record["kind"] == "train"), default=0)


def copied(photos: Path, target: Path, classes: int, copies: int) -> None:
    """The photographs of some classes, each several times."""
    for folder in sorted(path for path in photos.iterdir() if path.is_dir())[:classes]:
        (target / "once" / folder.name).mkdir(parents=True)
        (target / "often" / folder.name).mkdir(parents=True)
        for image in folder.iterdir():
            one = Path(shutil.copyfile(image, target / "once" / folder.name / image.name))
            for number in range(copies):
                os.link(one, target / "often" / folder.name / f"{number}-{image.name}")


def learned(do: Commands, options: argparse.Namespace) -> None:
    """From photographs to a prediction."""
    work, run = do.work, do.work / "photos-run"
    size = [] if options.recipe == "alexnet-2012" else ["--size", "24"]
    do.run("prepare", "prepare", "often", "store", "--validation", "once", *size)
    device = ["--backend", options.backend, "--precision", options.precision]
    choices = ["--recipe", options.recipe, "--init", "he", "--pixel-scale", "0.015625", "--views", "1"]
    choices += ["--batch-size", str(options.batch_size), "--epochs", str(options.epochs)]
    training = do.begin("train", "train", "--data", "store", *choices, *device, "--out", str(run))
    per_epoch = len(list((work / "often").glob("*/*"))) // options.batch_size
    do.stop("train", training, run, max(1, per_epoch * options.epochs // 2))
    do.run("resume", "train", "--resume", str(run))
    found = metrics(run)
    told = [record for record in found if record["kind"] == "train"]
    for record in told[:: max(1, len(told) // 12)]:
        do.say(f"  step {record['step']}: loss {record['loss']:.3f}, {record['images_per_second']:,.0f} images/s")
    rates = sorted(record["images_per_second"] for record in told)
    do.say(f"  images/s in {len(rates)} records: median {rates[len(rates) // 2]:,.0f}, most {rates[-1]:,.0f}")
    for record in found:
        if record["kind"] == "validation":
            do.say(f"  epoch {record['epoch']}: loss {record['loss']:.3f}, error {record['top1_error']:.1%}")
    image = sorted((work / "once").glob("*/*"))[0]
    both = {
        "evaluate": do.begin("evaluate", "evaluate", str(run), *device),
        "predict": do.begin("predict", "predict", str(run), str(image), *device),
    }
    for name, process in both.items():
        do.say("\n" + do.end(name, process).rstrip())
    for name in ("metrics.jsonl", "log.txt"):
        shutil.copyfile(run / name, do.kept / f"photos-{name}")
    error = [record for record in found if record["kind"] == "validation"][-1]["top1_error"]
    if error > MOST_ERROR and not options.few_steps:
        raise Failed(f"{error:.1%} of the photographs that it was trained on are wrong, more than {MOST_ERROR:.0%}")


def same_bits(do: Commands, options: argparse.Namespace) -> None:
    """The README's first command: at a stretch; and with both columns named, stopped and resumed."""
    command = ["train", "--backend", options.backend, *options.shapes.split()]
    one, two = do.work / "at-a-stretch", do.work / "stopped"
    first = do.begin("shapes", *command, "--out", str(one))
    second = do.begin("shapes-stopped", *command, "--devices", ",".join([options.device] * 2), "--out", str(two))
    do.stop("shapes-stopped", second, two, options.shapes_step)
    do.run("shapes-resumed", "train", "--resume", str(two))
    do.end("shapes", first)
    for record in metrics(one):
        if record["kind"] == "validation":
            do.say(f"  epoch {record['epoch']}: loss {record['loss']:.3f}, error {record['top1_error']:.1%}")
    shutil.copyfile(one / "metrics.jsonl", do.kept / "shapes-metrics.jsonl")
    last = [max((run / "checkpoints").glob("step-*"), key=lambda path: path.name) for run in (one, two)]
    names = sorted(path.name for path in last[0].glob("*.safetensors"))
    if last[0].name != last[1].name or not names:
        raise Failed(f"the runs end at {last[0].name} and {last[1].name}")
    differ = [name for name in names if (last[0] / name).read_bytes() != (last[1] / name).read_bytes()]
    if differ:
        raise Failed(f"at {last[0].name} bits differ in {', '.join(differ)}")
    do.say(f"same bits at {last[0].name} in {', '.join(names)}: at a stretch, and {options.device} twice, resumed")


def main(arguments: Sequence[str] | None = None) -> int:
    """All of it."""
    parser = argparse.ArgumentParser(description="training for real, on a device and through the command line")
    parser.add_argument("--photos", type=Path, default=Path(".photos"), help="a folder of photographs, one a class")
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--recipe", default="alexnet-2012")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--classes", type=int, default=1000, help="the first ones, at most")
    parser.add_argument("--copies", type=int, default=32, help="of each photograph")
    parser.add_argument("--few-steps", action="store_true", help="too few to learn anything: no error is too large")
    parser.add_argument("--shapes", default="", help="more options of the README's command")
    parser.add_argument("--shapes-step", type=int, default=150, help="where that is stopped")
    parser.add_argument("--kept", type=Path, default=Path("build/device-train"))
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # if it is ignored here, children ignore it
    options.kept = options.kept.resolve()
    options.kept.mkdir(parents=True, exist_ok=True)
    paths = [str(Path(path).resolve()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # commands work in another folder
    with tempfile.TemporaryDirectory() as work, ThreadPoolExecutor() as pool:
        do = Commands(Path(work), options.kept)
        parts = [same_bits]
        if options.photos.is_dir():
            copied(options.photos, do.work, options.classes, options.copies)
            parts.append(learned)
        else:
            do.say(f"no folder {options.photos}: nothing is learned of photographs (--photos names it)")
        failed = list(pool.map(lambda part: fails(part, do, options), parts))
    return 1 if any(failed) else 0


def fails(part: Callable[[Commands, argparse.Namespace], None], do: Commands, options: argparse.Namespace) -> bool:
    """Do a part, and tell why it fails if it does."""
    try:
        part(do, options)
    except Failed as failure:
        do.say(f"failed: {failure}")
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
