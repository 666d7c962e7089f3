"""Print README's first block of commands: what a newcomer types, and what CI runs before everything else."""

import re
from pathlib import Path

text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
block = re.search(r"```bash\n(.*?)```", text, re.DOTALL)
if block is None or "pytest" not in block[1]:
    raise SystemExit("README.md does not begin with a block of commands that ends with the tests")
print(block[1])
