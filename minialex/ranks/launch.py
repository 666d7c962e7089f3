"""Finds the launcher that started this process as one of several, and runs this environment's own, MPI's ``mpiexec``.

mpi4py is imported only when ranks are started; a process that no launcher started never imports it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn, TextIO

from minialex.errors import ConfigurationError, ResourceError
from minialex.ranks.parent import FORWARDED, dying
from minialex.screen.streams import complain

INSTALL = 'pip install "minialex[mpi]"'

CODES = (0, 1, 2, 3, 4, 5, 6, 75, 130)
"""Exit codes of a rank itself; every other code is the launcher's."""

ENDED_BY_SIGINT = (75, signal.SIGINT)
"""Codes after Ctrl-C: Open MPI's ranks are asked by SIGUSR1; a process that has hardly begun dies of the signal."""

NO_HOST = 255
"""The exit code of MPICH's mpiexec if it cannot log in."""

LOST = ResourceError.exit_code


@dataclass(frozen=True)
class Launcher:
    """What started this process as one of several.

    Attributes:
        name: ``"MPICH"`` (also Intel MPI, and ``srun --mpi=pmi2``), ``"Open MPI"`` or ``"PMIx"`` (``srun --mpi=pmix``)
        rank: number of this process, from 0
        size: number of processes
    """

    name: str
    rank: int
    size: int


def launcher(environment: Mapping[str, str] = os.environ) -> Launcher | None:
    """Find the launcher that started this process; None if it is alone.

    Raises:
        ConfigurationError: If it is not supported, or mpi4py is missing; in the first process only: the others end
            silently with the same code, so that one line is printed.
    """

    def number(*names: str, default: int = 1) -> int:
        return next((int(environment[name]) for name in names if environment.get(name, "").isdecimal()), default)

    found = None
    if "OMPI_COMM_WORLD_RANK" in environment:
        found = Launcher("Open MPI", number("OMPI_COMM_WORLD_RANK", default=0), number("OMPI_COMM_WORLD_SIZE"))
    elif "PMI_RANK" in environment and "PMI_SIZE" in environment:
        found = Launcher("MPICH", number("PMI_RANK", default=0), number("PMI_SIZE"))
    elif "PMIX_RANK" in environment:
        found = Launcher("PMIx", number("PMIX_RANK", default=0), number("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"))
    elif number("SLURM_STEP_NUM_TASKS") > 1:  # set by srun only: a batch script has SLURM_PROCID and SLURM_NTASKS, too
        size = number("SLURM_STEP_NUM_TASKS")
        _refuse(
            number("SLURM_PROCID", default=0), f"started by srun as one of {size}, without MPI: srun --mpi=pmi2 "
            f"(MPICH) or --mpi=pmix (Open MPI), or once: minialex train --ranks {size}",
        )  # fmt: skip
    elif "RANK" in environment and "MASTER_ADDR" in environment and number("WORLD_SIZE") > 1:
        size = number("WORLD_SIZE")
        name = "torchrun" if "TORCHELASTIC_RUN_ID" in environment else "a launcher of PyTorch's"
        _refuse(
            number("RANK", default=0),
            f"started by {name} (WORLD_SIZE={size}): minialex uses MPI: minialex train --ranks {size}",
        )
    if found is None or found.size == 1:
        return None
    if importlib.util.find_spec("mpi4py") is None:
        _refuse(found.rank, f"started by mpiexec as one of {found.size}, but mpi4py is not installed: {INSTALL}")
    return found


def check_library(found: Launcher, library: str) -> None:
    """Refuse a launcher that does not match the MPI library; to be called before MPI is initialised.

    Args:
        library: the library's description of itself (``MPI.Get_library_version()``)

    Raises:
        ConfigurationError: As `launcher` does.
    """
    if found.name == "PMIx":  # Open MPI, or an MPICH built for it
        return
    own = kind(library)
    if found.name != own:
        _refuse(found.rank, f"mpiexec is {found.name}'s, but mpi4py uses {own}: {_right_way(found)}")


def check_size(found: Launcher, size: int) -> None:
    """Refuse a launcher whose processes cannot find each other.

    Args:
        size: size of MPI's world

    Raises:
        ConfigurationError: As `launcher` does.
    """
    if found.size != size:
        alone = "finds itself alone" if size == 1 else f"finds {size}"
        what = f"mpiexec started {found.size} processes and each {alone}: it is not of the library that mpi4py uses"
        _refuse(found.rank, f"{what}: {_right_way(found)}")


def _right_way(found: Launcher) -> str:
    own = Path(sys.executable).parent / "mpiexec"
    return (f"use {own}, or " if own.is_file() else "") + f"minialex train --ranks {found.size}"


def kind(library: str) -> str:
    """The MPI vendor, from the version text of the library or of its ``mpiexec``: their launchers differ."""
    return "Open MPI" if any(name in library for name in ("Open MPI", "OpenRTE", "prte")) else "MPICH"


def _refuse(rank: int, message: str) -> NoReturn:
    """End: the first process says why, and the others give it time to."""
    if rank == 0:
        raise ConfigurationError(message)
    time.sleep(1.0)
    raise SystemExit(ConfigurationError.exit_code)


def command(mpiexec: str, vendor: str, ranks: int, hosts: str | None, words: Sequence[str]) -> list[str]:
    """The ``mpiexec`` command line for `ranks` processes, each under a `minialex.ranks.parent`.

    Args:
        vendor: see `kind`
        hosts: where they run (``a:8,b:8``); None: here, or on the machines that SLURM allocated
        words: the module that each runs (``minialex``), and its arguments
    """
    start = [mpiexec, "-n", str(ranks)]
    if vendor == "MPICH":
        start += ["-hosts", hosts] if hosts else []
    else:
        start += ["--bind-to", "none", "--map-by", ":OVERSUBSCRIBE"]  # else it binds every process to one core
        start += ["--allow-run-as-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        start += [word for name in ("PATH", "PYTHONPATH") if name in os.environ for word in ("-x", name)]
        start += ["--host", hosts] if hosts else []
    return [*start, sys.executable, "-m", "minialex.ranks.parent", *words]


def start(ranks: int, hosts: str | None, words: Sequence[str]) -> int:
    """Run a program as `ranks` processes with this environment's ``mpiexec``, and wait for them to end.

    Signals are forwarded to all of them: SIGTERM, SIGHUP, SIGUSR1 and the first Ctrl-C ask them to save and end.

    Args:
        ranks: number of processes
        hosts: see `command`
        words: the module that each runs (``minialex``), and its arguments

    Returns:
        The exit code: that of the ranks; 6 if one was lost.

    Raises:
        ConfigurationError: If mpi4py or its ``mpiexec`` is missing.
    """
    mpiexec, vendor = find_mpiexec()
    asked: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def forward(number: int, _: FrameType | None) -> None:
        asked.append(number)
        if process is not None:
            pass_on(process, number)

    def pass_on(process: subprocess.Popen[bytes], number: int) -> None:
        if vendor == "Open MPI" and asked.count(signal.SIGINT) < 2:
            process.send_signal(signal.SIGUSR1)  # the other signals end its mpiexec at once
        else:
            process.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    before = {n: signal.signal(n, forward) for n in FORWARDED if signal.getsignal(n) != signal.SIG_IGN}
    try:
        process = subprocess.Popen(
            command(mpiexec, vendor, ranks, hosts, words), stdin=subprocess.DEVNULL, env=_environment(),
            start_new_session=True,  # or a terminal's Ctrl-C would reach every process twice
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,  # it would end all ranks once nothing reads its output
            preexec_fn=dying(signal.SIGTERM),  # noqa: PLW1509 - one system call
        )  # fmt: skip
        for number in asked:
            pass_on(process, number)
        assert process.stdout is not None
        assert process.stderr is not None
        pairs = (process.stdout, sys.stdout), (process.stderr, sys.stderr)
        threads = [threading.Thread(target=_copy, args=pair) for pair in pairs]
        for thread in threads:
            thread.start()
        code = process.wait()
        for thread in threads:
            thread.join()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked.count(signal.SIGINT) > 1 or (signal.SIGINT in asked[:1] and code in ENDED_BY_SIGINT):
        return 130
    if code < 0:
        complain("error", f"mpiexec was killed by {signal.Signals(-code).name}")
    if hosts and code == NO_HOST:
        complain("error", f"mpiexec could not start ranks on {hosts}: it logs in by ssh, without a password")
    return code if code in CODES else LOST  # for ranks that it kills, mpiexec returns a code of its own


def _copy(source: IO[bytes], target: TextIO | None) -> None:
    """Pass on the ranks' output as it comes; what can no longer be written is dropped."""
    with source:
        while piece := os.read(source.fileno(), 1 << 16):
            with contextlib.suppress(OSError, ValueError):
                if target is not None:
                    target.buffer.write(piece)
                    target.flush()


def find_mpiexec() -> tuple[str, str]:
    """The ``mpiexec`` that belongs to mpi4py's library, and its vendor.

    Raises:
        ConfigurationError: If there is none, or mpi4py is missing.
    """
    if importlib.util.find_spec("mpi4py") is None:
        raise ConfigurationError(f"ranks need mpi4py and an mpiexec: {INSTALL}")
    import mpi4py

    mpi4py.rc.initialize = False
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # mpi4py without any library
        words = " ".join(str(error).split())
        raise ConfigurationError(f"mpi4py finds no MPI library ({words}): {INSTALL}") from None
    vendor = kind(MPI.Get_library_version())
    own = Path(sys.executable).parent / "mpiexec"
    there = [os.fspath(own)] if own.is_file() else []
    there += [path for path in [shutil.which("mpiexec")] if path and path not in there]
    for path in there:
        told = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if kind(told.stdout + told.stderr) == vendor:
            return path, vendor
    others = f", only another library's ({', '.join(there)})" if there else ""
    raise ConfigurationError(f"mpi4py uses {vendor}, and it has no mpiexec here{others}: {INSTALL}")


def _environment() -> dict[str, str]:
    """The processes' environment: the first one draws its display on this process's terminal."""
    environment = dict(os.environ)
    if sys.stdout is not None and sys.stdout.isatty():
        size = shutil.get_terminal_size()
        environment |= {"TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1", "FORCE_COLOR": "1"}
        environment |= {"COLUMNS": str(size.columns), "LINES": str(size.lines)}
    return environment
