"""``python -m minialex.site``: writes all generated parts of the site into ``docs/made`` of the source tree.

With ``--build FOLDER`` it builds the whole site into that folder (as ``minialex docs`` does).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from minialex.errors import MinialexError
from minialex.site import build


def main() -> int:
    """Write the pages; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m minialex.site", description="Write the site's generated parts.")
    parser.add_argument("--build", type=Path, metavar="FOLDER", help="write the whole site into this folder instead")
    folder = parser.parse_args().build
    try:
        if folder is not None:
            build.build(folder)
        else:
            for line in build.make():
                print(line)
    except MinialexError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
