"""A trainer of twelve numbers on a run folder, for tests that kill it: `python tiny_trainer.py FOLDER`.

It begins or resumes by itself, and ends with ``result.json``: weights, momentum and state.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from minialex.runs import checkpoint
from minialex.runs.run_folder import Run, is_run
from minialex.storage import atomic

STEPS, EVERY = 6, 2


def main(folder: Path) -> None:
    """Train to the end."""
    weights = {"w": np.linspace(-1, 1, 12, dtype=np.float32)}
    momentum = {"w": np.zeros(12, np.float32)}
    lowest, first = None, 0
    with Run.resume(folder) if is_run(folder) else Run.create(folder, "steps = 6\n") as run:
        found = checkpoint.latest(run.paths.checkpoints)
        if found:
            weights, momentum, first, lowest = found.weights, found.momentum, found.step, found.state["lowest"]
        run.drop_metrics_after(first)
        print(f"resumed from step {first}", flush=True)
        for step in range(first + 1, STEPS + 1):
            momentum["w"] = np.float32(0.9) * momentum["w"] - np.float32(0.1) * np.sin(weights["w"] * step)
            weights["w"] = weights["w"] + momentum["w"]
            loss = float(np.square(weights["w"]).mean())
            run.append({"kind": "train", "step": step, "loss": loss})
            if step % EVERY == 0:
                is_best = lowest is None or loss < lowest
                lowest = loss if is_best else lowest
                run.sync()
                checkpoint.save(
                    run.paths.checkpoints, step, weights, momentum, {"lowest": lowest}, keep=100, best=is_best
                )
        atomic.write_json(
            folder / "result.json",
            {
                "weights": weights["w"].tolist(),
                "momentum": momentum["w"].tolist(),
                "lowest": lowest,
                "best": checkpoint.best(run.paths.checkpoints).step,
            },
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
