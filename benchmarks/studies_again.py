"""Two arms of three recorded studies, trained again with seeds of their own: do the intervals meet?

``python benchmarks/studies_again.py cifar-10-python.tar.gz [FOLDER]`` keeps what it finds in
benchmarks/results/studies-again.json, from which ``python benchmarks/studies.py`` writes the table of
docs/ablations.md. Stopped, it goes on when it is started again. Learning rates are those of the record.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from studies import AGAIN, OTHER_SEEDS, again

from minialex.backend import registry
from minialex.cli.ablate import runs_of, train
from minialex.screen.terminal import console
from minialex.storage import atomic
from minialex.studies import measures, outcome
from minialex.studies.running import Place, unfinished


def main(data: str, out: Path) -> int:
    """Train what is missing, two runs at once, and keep the outcomes."""
    place, screen = Place(out, data, threads=1), console()
    chosen = {name: again(name) for name in AGAIN}
    wishes = [job for study in chosen.values() for job in runs_of(study, study.seeds)]
    atomic.make_folder(out / "runs")
    if (todo := unfinished(wishes, out)) and (signal := train(screen, todo, place, 2)):
        screen.print(f"stopped by {signal}: start it again, and it goes on")
        return 1
    networks = measures.Networks(registry.load(None), None, data)
    command = f"python benchmarks/studies_again.py {Path(data).name}"
    results = {name: outcome.collect(study, study.seeds, out, networks, command) for name, study in chosen.items()}
    text = json.dumps({name: result.to_json() for name, result in results.items()}, separators=(",", ":"))
    atomic.write_text(OTHER_SEEDS, text + "\n")
    screen.print(f"recorded     {OTHER_SEEDS}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else "runs/ablations")))
