"""``python -m minialex …``: the command line, from a source tree too, where nothing is installed."""

from __future__ import annotations

import sys

NEEDED = ("typer", "rich")
"""What every command needs; NumPy apart, some need more, and say so."""

if __name__ == "__main__":
    try:
        from minialex.cli.app import main
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        print(f"error: the commands need {' and '.join(NEEDED)}: pip install {' '.join(NEEDED)}", file=sys.stderr)
        sys.exit(2)
    main()
