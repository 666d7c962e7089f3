"""How long a user of `minialex train` waits for the first step: prints the seconds since the moment given, and ends.

python benchmarks/first_step.py SECONDS-SINCE-1970 train --backend numba …
"""

from __future__ import annotations

import os
import sys
import time

BEGAN = float(sys.argv[1])


def main() -> None:
    """The command itself, with the first step's end reported."""
    from minialex.cli import app as cli
    from minialex.training.display import TrainingDisplay

    def stepped(*_: object) -> None:
        os.write(2, f"first step after {time.time() - BEGAN:.2f} s\n".encode())
        os._exit(0)

    TrainingDisplay.stepped = stepped  # type: ignore[method-assign]
    cli.main(sys.argv[2:])


if __name__ == "__main__":
    main()
