"""A limit of the address space stands for a small machine: the error says what would fit, and that then does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minialex.backend import registry
from minialex.data import load
from minialex.engine import memory
from minialex.engine.opening import new_session
from minialex.engine.schedule import epoch_rates
from minialex.errors import ResourceError
from minialex.recipe.toml import load as load_recipe

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits of the address space")

TRAIN = """
import resource, sys, threading
from pathlib import Path
import minialex
import minialex.api.run
from minialex.errors import ResourceError

threading.stack_size(1 << 18)  # else every thread takes 8 MB, and how many there are is chance
minialex.api.run.write_report = lambda paths, *_: paths.report.touch()  # takes a second
backend, batch, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
choices = dict(backend=backend, threads=2 if backend == "numba" else None, kernels=(4,) * 5, features=(8, 8),
               validation_images=64, epochs=1, progress=False)
minialex.train("shapes", **choices, train_images=16, batch_size=16, out=folder + "/first")  # what is compiled is, now
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (66 << 20), resource.RLIM_INFINITY))
try:
    run = minialex.train("shapes", **choices, train_images=1500, batch_size=batch, out=folder + "/run")
except ResourceError as error:
    print(error)
    print(Path(folder, "run").exists())
else:
    print("trained", run.result.progress.step)
"""


def train(backend: str, batch: int, folder: Path) -> list[str]:
    folder.mkdir()
    words = [sys.executable, "-c", TRAIN, backend, str(batch), str(folder)]
    # a heap for every thread would take 64 MB of the address space, or not
    one_heap = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300, env=one_heap)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_the_advised_batch_fits(tmp_path: Path, name: str) -> None:
    if name not in registry.installed():
        pytest.skip(f"no backend {name}")
    message, left = train(name, 1500, tmp_path / "one")
    found = re.fullmatch(
        r"out of memory with a batch of 1500 images \(about ([\d.]+) MB needed, ([\d.]+) MB available\); "
        r"try batch_size = (\d+)", message
    )  # fmt: skip
    assert found, message
    needed, available, fits = float(found[1]), float(found[2]), int(found[3])
    assert needed > available > 10
    assert 40 < fits < 1500, "not far too careful"
    assert left == "False", "a run that came to nothing leaves no folder"
    assert train(name, fits, tmp_path / "two") == [f"trained {1500 // fits}"]


def test_a_trial_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load("shapes", train_images=32, validation_images=8)
    session = new_session(load_recipe("small").replace(kernels=(4,) * 5, features=(8, 8)), data, registry.load("numpy"))
    images, labels = data.train.read(np.arange(32)), data.train.labels
    now = epoch_rates(session.recipe, 1, [])
    session.train(images, labels, 0, now)  # momentum is not zero any more
    before = {**session.weights(), **{f"momentum {name}": a for name, a in session.momentum().items()}}
    feed = session.upload(images, labels, 1, now)
    monkeypatch.setattr(session, "step", lambda *_: _fails)
    with pytest.raises(ResourceError, match=r"with a batch of 32 images \(about .* needed, .* available\); try"):
        session.start(feed)
    after = {**session.weights(), **{f"momentum {name}": a for name, a in session.momentum().items()}}
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    assert (memory.available_memory() or 1) > 0


def _fails(feed: object) -> None:
    raise MemoryError
