"""``python -m minialex.site.diagrams FOLDER``: write all drawings."""

import sys
from pathlib import Path

from minialex.site.diagrams import write

if len(sys.argv) != 2:
    sys.exit("usage: python -m minialex.site.diagrams FOLDER")
for path in write(Path(sys.argv[1])):
    print(path)
