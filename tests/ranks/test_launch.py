"""Which launcher started a process, what is refused, and the command line of `mpiexec`; the environment is faked."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minialex.cli.app import run
from minialex.errors import ConfigurationError
from minialex.ranks import joining, launch
from minialex.ranks.group import ALONE
from minialex.ranks.launch import Launcher, check_library, check_size, launcher

ROOT = Path(__file__).parents[2]

VARIABLES = {
    "mpich": {"PMI_RANK": "1", "PMI_SIZE": "4"},
    "openmpi": {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4"},
    "pmi2": {"PMI_RANK": "1", "PMI_SIZE": "4", "SLURM_STEP_NUM_TASKS": "4"},
    "pmix": {"PMIX_RANK": "1", "SLURM_STEP_NUM_TASKS": "4"},
    "torchrun": {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "::1", "TORCHELASTIC_RUN_ID": "none"},
    "srun": {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"},
}


@pytest.fixture(autouse=True)
def with_mpi4py(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let mpi4py be there, whether it is or not, and this process be alone."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True if name == "mpi4py" else find(name))
    for variables in VARIABLES.values():
        for name in variables:
            monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("by", "name"), [("mpich", "MPICH"), ("openmpi", "Open MPI"), ("pmi2", "MPICH"), ("pmix", "PMIx")]
)
def test_launchers_of_mpi_are_known(by: str, name: str) -> None:
    assert launcher(VARIABLES[by]) == Launcher(name, 1, 4)


def test_a_process_of_its_own_is_alone() -> None:
    alone = [
        {},
        {"PMI_RANK": "0", "PMI_SIZE": "1"},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"},  # a batch script's own process
        {"SLURM_STEP_NUM_TASKS": "1"},
        {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "here"},
        {"WORLD_SIZE": "4", "MASTER_ADDR": "here"},  # a script set them for others
        {"PMI_RANK": "0"},
    ]
    assert [launcher(environment) for environment in alone] == [None] * len(alone)


@pytest.mark.parametrize("variables", [{}, {"PMI_RANK": "0", "PMI_SIZE": "1"}], ids=["alone", "mpiexec -n 1"])
def test_one_process_under_mpiexec_is_one_without_it(variables: dict[str, str]) -> None:
    """The same group, so the same step, record and loop; and nothing of MPI is there that could send or wait."""
    code = (
        "import sys, threading; from minialex.ranks import joining; from minialex.ranks.group import ALONE; "
        "assert joining.join() is ALONE; assert threading.active_count() == 1; "
        "assert not [name for name in sys.modules if name.split('.')[0] == 'mpi4py' or name == 'minialex.ranks.mpi']"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT), **variables}, timeout=60
    )


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("torchrun", "started by torchrun (WORLD_SIZE=4): minialex uses MPI: minialex train --ranks 4"),
        (
            "srun",
            "started by srun as one of 4, without MPI: srun --mpi=pmi2 (MPICH) or --mpi=pmix (Open MPI), or once: "
            "minialex train --ranks 4",
        ),
    ],
)
def test_what_is_not_mpi_is_refused_before_anything_starts(
    by: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name, value in VARIABLES[by].items():
        monkeypatch.setenv(name, value)
    assert run(["train", "--data", "shapes", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr() == ("", f"error: {said}\n")
    assert not list(tmp_path.iterdir())


def test_the_others_end_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with pytest.raises(SystemExit) as ended:
        launcher({**VARIABLES["torchrun"], "RANK": "1"})
    assert (ended.value.code, slept) == (2, [1.0])


def test_mpi4py_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"as one of 4, but mpi4py is not installed: pip install"):
        launcher({**VARIABLES["mpich"], "PMI_RANK": "0"})
    with pytest.raises(ConfigurationError, match="ranks need mpi4py and an mpiexec: pip install"):
        launch.find_mpiexec()


def test_a_wrong_pair_is_refused() -> None:
    mpich, openmpi = "MPICH Version:      5.0.2\n…", "Open MPI v5.0.11, package: …"
    check_library(Launcher("MPICH", 0, 4), mpich)
    check_library(Launcher("MPICH", 0, 4), "Intel(R) MPI Library 2021.19")
    check_library(Launcher("Open MPI", 0, 4), openmpi)
    check_library(Launcher("PMIx", 0, 4), openmpi)
    check_size(Launcher("MPICH", 0, 4), 4)
    with pytest.raises(ConfigurationError, match=r"mpiexec is MPICH's, but mpi4py uses Open MPI: .*--ranks 4"):
        check_library(Launcher("MPICH", 0, 4), openmpi)
    with pytest.raises(ConfigurationError, match="mpiexec is Open MPI's, but mpi4py uses MPICH"):
        check_library(Launcher("Open MPI", 0, 4), mpich)
    with pytest.raises(ConfigurationError, match="mpiexec started 4 processes and each finds itself alone"):
        check_size(Launcher("PMIx", 0, 4), 1)


def test_an_mpiexec_of_another_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("mpi4py")
    own, path = tmp_path / "own", tmp_path / "path"
    for folder, says in ((own, "HYDRA build details:"), (path, "mpiexec (Open MPI) 5.0.11")):
        folder.mkdir()
        (folder / "mpiexec").write_text(f"#!/bin/sh\necho '{says}'\n")
        (folder / "mpiexec").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(own / "python"))
    monkeypatch.setenv("PATH", f"{path}:{os.environ['PATH']}")
    from mpi4py import MPI

    monkeypatch.setattr(MPI, "Get_library_version", lambda: "MPICH Version: 5")
    assert launch.find_mpiexec() == (str(own / "mpiexec"), "MPICH")
    monkeypatch.setattr(MPI, "Get_library_version", lambda: "Open MPI v5")
    assert launch.find_mpiexec() == (str(path / "mpiexec"), "Open MPI")
    (path / "mpiexec").unlink()
    monkeypatch.setenv("PATH", str(path))
    with pytest.raises(ConfigurationError, match="no mpiexec here, only another library's"):
        launch.find_mpiexec()


def test_command_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "there")
    ours = [sys.executable, "-m", "minialex.ranks.parent", "train", "--ranks", "4"]
    mpich = launch.command("/env/mpiexec", "MPICH", 4, "a:2,b:2", ours[3:])
    assert mpich == ["/env/mpiexec", "-n", "4", "-hosts", "a:2,b:2", *ours]
    openmpi = launch.command("mpiexec", "Open MPI", 4, None, ours[3:])
    assert openmpi[:3] == ["mpiexec", "-n", "4"]
    assert openmpi[-len(ours) :] == ours
    assert " -x PYTHONPATH " in " ".join(openmpi)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ranks", "3"], "error: started as one of 4 processes, but --ranks is 3: leave it out\n"),
        (["--hosts", "a:2"], "error: --hosts says where ranks run: also give --ranks\n"),
    ],
)
def test_options_that_do_not_fit(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in VARIABLES["mpich"].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(joining, "join", lambda: ALONE)
    assert run(["train", *words]) == 2
    assert capsys.readouterr().err == said


def test_a_rank_is_not_in_the_group_of_its_parent(tmp_path: Path) -> None:
    """MPICH signals the parent's whole group: the rank would get a Ctrl-C twice, which ends it at once."""
    (tmp_path / "group.py").write_text("import os; print(os.getpgrp() == os.getpid())")
    path = os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "backends")))
    done = subprocess.run(
        [sys.executable, "-m", "minialex.ranks.parent", "group"], text=True, stdout=subprocess.PIPE, check=True,
        env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
    )  # fmt: skip
    assert done.stdout == "True\n"


def test_a_host_that_cannot_be_reached_is_an_error_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "mpiexec"
    program.write_text("#!/bin/sh\necho 'ssh: no such host' >&2; exit 255\n")
    program.chmod(0o755)
    monkeypatch.setattr(launch, "find_mpiexec", lambda: (str(program), "MPICH"))
    assert launch.start(2, "nowhere", ["minialex"]) == 6
    _, last = capfd.readouterr().err.splitlines()
    assert last == "error: mpiexec could not start ranks on nowhere: it logs in by ssh, without a password"


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals cannot be held back")
def test_a_ctrl_c_waits_until_all_have_joined(tmp_path: Path) -> None:
    """A rank that it ended before would be waited for by the others for ever."""
    (tmp_path / "mpi4py.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nprint('joining')\nraise ImportError('no library')\n"
    )
    path = os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "backends")))
    done = subprocess.run(
        [sys.executable, "-m", "minialex", "summary"], text=True, capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": path, "PMI_RANK": "0", "PMI_SIZE": "2"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (130, "joining\n")
    assert done.stderr == "error: interrupted; the last checkpoint is valid\n"


BLOCKED = """
import os, signal
if os.environ.get("PMI_RANK") == "1":
    block = signal.pthread_sigmask
    def mask(how, which):
        found = block(how, which)
        if how == signal.SIG_BLOCK and signal.SIGTERM in which:
            os.kill(os.getpid(), signal.SIGTERM)
        return found
    signal.pthread_sigmask = mask
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals cannot be held back")
def test_a_signal_to_one_rank_before_all_have_joined_ends_all(tmp_path: Path) -> None:
    """With the code that says that nothing failed, and soon: the other one is joining, or waits already."""
    pytest.importorskip("mpi4py", reason="no mpi4py")
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    path = os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "backends")))
    done = subprocess.run(
        [sys.executable, "-m", "minialex", "train", "--ranks", "2", "--backend", "numpy", "--out", "run"],
        text=True, capture_output=True, check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 75, done.stderr
    assert re.fullmatch(r"error: rank 1 \(pid \d+ on \S+\): asked to end by SIGTERM\n", done.stderr), done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="no alarms")
def test_a_rank_does_not_wait_for_ever_for_others_to_join(tmp_path: Path) -> None:
    """MPI's own wait lets no other thread run: an alarm ends the process, and its parent says what that means."""
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").write_text("class rc: pass\n")
    (tmp_path / "mpi4py" / "MPI.py").write_text(
        "import time\nTHREAD_MULTIPLE = COMM_WORLD = None\ndef Get_library_version(): return 'MPICH'\n"
        "def Init_thread(_): time.sleep(60)\ndef Query_thread(): return None\n"
    )
    (tmp_path / "late.py").write_text(
        "from minialex.ranks import joining\njoining.JOINING = 1\nfrom minialex.cli.app import main\nmain(['recipe'])\n"
    )
    path = os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "backends")))
    done = subprocess.run(
        [sys.executable, "-m", "minialex.ranks.parent", "late"], text=True, capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": path, "PMI_RANK": "0", "PMI_SIZE": "2"}, timeout=60,
    )  # fmt: skip
    assert done.returncode == 6
    wanted = r"error: rank 0 \(pid \d+ on \S+\) waited for others that did not join\n"
    assert re.fullmatch(wanted, done.stderr), done.stderr
