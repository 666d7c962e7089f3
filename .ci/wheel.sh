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

if [ -f "$OLDPWD/site/index.html" ]; then # the wheel has the site, if it was built
  venv/bin/minialex docs --no-browser >docs.log &
  trap 'kill $!' EXIT
  venv/bin/python - <<'PYTHON'
import re, time, urllib.request
for _ in range(100):
    if found := re.search(r"http://\S+/index\.html", open("docs.log").read()):
        break
    time.sleep(0.1)
for page in ("index.html", "tutorial/03-convolution.html", "made/notebooks/02_convolution.html"):
    with urllib.request.urlopen(found[0].replace("index.html", page)) as answer:
        assert b"minialex" in answer.read(), page
print("minialex docs serves the site")
PYTHON
fi
