"""Fail if ``import minialex`` (or the reference backend) loads anything but NumPy and the standard library."""

import subprocess
import sys

CODE = """
import sys
before = set(sys.modules)
import minialex, minialex.network.models, minialex.engine.columns, minialex.engine.step, minialex.backend.registry
import minialex_numpy
loaded = {name.partition('.')[0] for name in set(sys.modules) - before}
print(sorted(loaded - set(sys.stdlib_module_names) - {'numpy', 'minialex', 'minialex_numpy'}))
"""

found = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout.strip()
if found != "[]":
    sys.exit(f"importing minialex loads {found}")
print("only NumPy and the standard library")
