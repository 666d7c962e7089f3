"""The loss at the beginning of training, recorded: which initial weights leave the plateau at log(classes).

``python -m minialex.site.plateau`` repeats the three runs (about half a minute on two cores) and writes the file
that the tutorial's diagram is drawn from. Sources: section 5 of the paper for N(0, 0.01²) and biases of 1; He et al.
2015 for √(2 / inputs).
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from minialex.cli.app import run
from minialex.runs.run_folder import read_metrics
from minialex.speed.machine import describe
from minialex.storage.atomic import write_text

RECORDED = Path(__file__).with_name("plateau.json")
CLASSES = 10  # of `shapes`
RECIPE = ("--recipe", "shapes", "--epochs", "3", "--dropout", "0")
ARMS = {
    "N(0, 0.01²), biases 1 (section 5)": ("--init", "gaussian", "--std", "0.01", "--bias", "1"),
    "N(0, 0.01²), biases 0": ("--init", "gaussian", "--std", "0.01", "--bias", "0"),
    "He: N(0, 2 / inputs)": ("--init", "he"),
}
"""Each run's name, and its options besides `RECIPE`."""


@dataclass(frozen=True)
class Curve:
    """Mean losses over some steps each, from two records of a run's metrics; `steps` are the last steps of each."""

    name: str
    command: str
    steps: list[int]
    losses: list[float]


def read() -> list[Curve]:
    """The recorded runs."""
    return [Curve(**curve) for curve in json.loads(RECORDED.read_text(encoding="utf-8"))["curves"]]


def _run(name: str, options: tuple[str, ...], folder: Path) -> Curve:
    words = ["train", *RECIPE, *options]
    if run([*words, "--out", str(folder)]):
        raise SystemExit(f"minialex {' '.join(words)} failed")
    trained = [line for line in read_metrics(folder / "metrics.jsonl") if line["kind"] == "train"]
    pairs = list(zip(trained[::2], trained[1::2], strict=False))
    losses = [round((first["loss"] + second["loss"]) / 2, 4) for first, second in pairs]
    return Curve(name, "minialex " + " ".join(words), [second["step"] for _, second in pairs], losses)


def main() -> None:
    """Train and record."""
    with tempfile.TemporaryDirectory() as folder:
        curves = [asdict(_run(name, options, Path(folder) / str(i))) for i, (name, options) in enumerate(ARMS.items())]
    write_text(RECORDED, json.dumps({"machine": describe(), "curves": curves}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
