#!/usr/bin/env bash
# Build the wheel, install it alone in a new environment, and use it from an empty folder.
set -euo pipefail
python=$1
work=$(mktemp -d)
pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$work" .
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "$(echo "$work"/*.whl)[conformance]"
cd "$work"
venv/bin/minialex --version
venv/bin/minialex backends
venv/bin/minialex notebooks labs
ls labs | diff - <(cd "$OLDPWD/notebooks" && ls [0-9][0-9]_*.ipynb) # the wheel has all of them
venv/bin/minialex train --out run --epochs 1 --train-images 640 --validation-images 200
venv/bin/minialex evaluate run
venv/bin/python -m pytest --quiet -p no:cacheprovider --pyargs minialex.conformance --backend numpy -k relu
venv/bin/minialex grade numpy --only relu,conv2d --examples 20
