"""Two arms of three recorded studies, trained again with seeds of their own: do the intervals meet?

``python benchmarks/studies_again.py cifar-10-python.tar.gz [FOLDER]`` keeps what it finds in
benchmarks/results/studies-again.json, from which ``python benchmarks/studies.py`` writes the table of
docs/ablations.md. Stopped, it goes on when it is started again. Learning rates are those of the record; a study whose
runs are the kept ones is not trained again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from studies import AGAIN, OTHER_SEEDS, again

from minialex.backend import registry
from minialex.cli.ablate import runs_of, train
from minialex.screen.terminal import console
from minialex.storage import atomic
from minialex.studies import measures, outcome
from minialex.studies.running import Place, unfinished
from minialex.studies.study import Study, key


def runs_of_study(study: Study) -> list[list[str]]:
    """The keys of its runs, arm by arm."""
    return [[key(study.recipe(arm, seed)) for seed in study.seeds] for arm in study.arms]


def runs_in(recorded: Any) -> list[list[str]] | None:
    """The keys of a recorded outcome's runs."""
    return None if recorded is None else [arm["keys"] for arm in recorded["arms"]]


def main(data: str, out: Path) -> int:
    """Train what is missing, two runs at once, and keep the outcomes."""
    place, screen = Place(out, data, threads=1), console()
    kept = json.loads(OTHER_SEEDS.read_text(encoding="utf-8")) if OTHER_SEEDS.exists() else {}
    chosen = {name: study for name in AGAIN if runs_in(kept.get(name)) != runs_of_study(study := again(name))}
    wishes = [job for study in chosen.values() for job in runs_of(study, study.seeds)]
    atomic.make_folder(out / "runs")
    if (todo := unfinished(wishes, out)) and (signal := train(screen, todo, place, 2)):
        screen.print(f"stopped by {signal}: start it again, and it goes on")
        return 1
    networks = measures.Networks(registry.load(None), None, data)
    command = f"python benchmarks/studies_again.py {Path(data).name}"
    made = {name: outcome.collect(study, study.seeds, out, networks, command) for name, study in chosen.items()}
    results = {name: made[name].to_json() if name in made else kept[name] for name in AGAIN}
    text = json.dumps(results, separators=(",", ":"))
    atomic.write_text(OTHER_SEEDS, text + "\n")
    screen.print(f"recorded     {OTHER_SEEDS}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else "runs/ablations")))
