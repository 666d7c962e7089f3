"""``python -m minialex.site``: writes all generated parts of the site into ``docs/made`` of the source tree.

With ``--build FOLDER`` the whole site goes into that folder (what ``minialex docs`` calls).
"""

from __future__ import annotations

import sys
from pathlib import Path

from minialex.errors import MinialexError
from minialex.site import build


def main() -> int:
    """Write the pages; returns the exit code."""
    try:
        if sys.argv[1:2] == ["--build"]:
            build.build(Path(sys.argv[2]))
        else:
            for line in build.make():
                print(line)
    except MinialexError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
