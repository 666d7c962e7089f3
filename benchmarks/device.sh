#!/usr/bin/env bash
# Proof and timings on a borrowed GPU that is there for minutes, from a source tree, nothing to be downloaded there:
#
#     bash benchmarks/device.sh              every part that is not done yet, the most valuable first
#     bash benchmarks/device.sh first kit    these parts, done or not
#
# The machine's own Python must have cupy, numba, numba-cuda, hypothesis, pytest and torch. Wheels that lie in .whl/ are
# installed first; numba-cuda 0.30 needs NumPy below 2.5, so where there is a newer one, bring (for Python 3.12):
#
#     python3 -m pip download -d .whl --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
#       --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
#       numpy==2.4.6 numba-cuda==0.30.4 nvidia-cudnn-frontend==1.18.0
#
# Every part is a process of its own with its own time limit: what hangs or crashes takes nothing else with it. LIMIT is
# the seconds of the whole call (570): a part that no longer fits is left for the next one. After each part all that
# there is goes into $OUT/device.tar and $OUT/summary.txt (OUT: build/device). To go on later, also on another machine,
# unpack device.tar in the source tree and call this again: parts that ended well are not repeated (KEPT: where results
# lie, benchmarks/results/device).
#
# Not yet run on a device; tests/cuda/test_pretend.py runs it on a pretend one.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-build/device}
LIMIT=${LIMIT:-570}
PYTHON=${PYTHON:-python3}
kept=${KEPT:-benchmarks/results/device}
mkdir -p "$OUT" "$kept"
export PYTHONPATH=.:backends${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
if [ -z "${CUDA_HOME:-}" ] && command -v nvcc >/dev/null; then # numba-cuda looks for NVVM there
  CUDA_HOME=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")
  export CUDA_HOME
fi
if compgen -G ".whl/*.whl" >/dev/null; then
  "$PYTHON" -m pip install --quiet --no-index --no-deps --no-cache-dir --upgrade .whl/*.whl || echo "wheels: not installed"
fi

tests() { "$PYTHON" -m pytest -q -p no:cacheprovider -m gpu -rs --durations=10 tests/gpu "$@"; }
speed() { # precision, batch size: beside PyTorch, eager and compiled
  "$PYTHON" benchmarks/gpu.py --precisions "$1" --batch-sizes "$2" --out "$kept/$1-$2.json"
}

# name, seconds at most, what it does
parts='
machine         60  machine
first           90  tests -k "float32-relu or float32-conv2d or not_there" --maxfail=1
steps          200  tests -k "graph or streams"
bfloat16-1024  240  speed bfloat16 1024
tf32-1024      240  speed tf32 1024
bfloat16-128   200  speed bfloat16 128
paper          150  tests -k papers
kit            300  tests -k "kit and float32"
kit-bfloat16   300  tests -k "kit and bfloat16"
memory         150  tests -k "thousand or two_devices"
float32-128    200  speed float32 128
tf32-128       200  speed tf32 128
kit-tf32       300  tests -k "kit and tf32"
float32-1024   300  speed float32 1024
bfloat16-256   200  speed bfloat16 256
doctor         120  doctor
'

machine() {
  nvidia-smi || true
  nvcc --version | tail -2 || true
  "$PYTHON" - <<'P'
from importlib.metadata import PackageNotFoundError, version
import platform, sys

print("python", sys.version.split()[0], platform.platform())
for name in ("numpy", "numba", "numba-cuda", "cupy-cuda13x", "cuda-bindings", "cuda-core", "cuda-pathfinder",
             "nvidia-cudnn-frontend", "nvidia-cudnn-cu13", "nvidia-cublas", "nvidia-nvjitlink", "nvidia-nvvm", "torch",
             "hypothesis", "pytest"):
    try:
        print(name, version(name))
    except PackageNotFoundError:
        print(name, "-")
from cuda.pathfinder import load_nvidia_dynamic_lib

for name in ("cublas", "nvrtc", "nvvm", "nvJitLink"):
    try:
        print(name, load_nvidia_dynamic_lib(name).abs_path)
    except Exception as error:
        print(name, "does not load:", str(error)[:200])
from minialex_cuda.runtime.cudnn import frontend
from minialex_cuda.diagnose.diagnosis import reason

print("cudnn", "loads" if frontend() else "is not there: convolutions go by patches")
found = reason()
print("the cuda backend", f"cannot be used: {found}" if found else "can be used")
sys.exit(1 if found else 0)
P
}

doctor() { "$PYTHON" -m minialex doctor --report "$kept/doctor.json"; }

pack() {
  tail -n +1 "$kept"/*.status 2>/dev/null >"$OUT/summary.txt" || true
  tar cf "$OUT/device.tar.new" "$kept" 2>/dev/null && mv "$OUT/device.tar.new" "$OUT/device.tar"
}

export -f tests speed machine doctor
export PYTHON kept
wanted=" $* "
failed=0
while read -r name seconds work; do
  [ -z "$name" ] && continue
  if [ $# -gt 0 ]; then
    [[ $wanted == *" $name "* ]] || continue
  elif [ -e "$kept/$name.status" ] && grep -q '^ended well' "$kept/$name.status"; then
    continue
  fi
  left=$((LIMIT - SECONDS))
  if [ "$left" -lt 20 ]; then
    echo "== $name: left for the next call"
    continue
  fi
  limit=$((left < seconds ? left : seconds))
  echo "== $name (at most $limit s)"
  began=$SECONDS
  timeout --kill-after=5 "$limit" bash -c "$work" >"$kept/$name.log" 2>&1 </dev/null
  code=$?
  took=$((SECONDS - began))
  if [ "$code" -eq 0 ]; then
    echo "ended well after $took s" >"$kept/$name.status"
  else
    failed=1
    echo "failed with $code after $took s$([ "$code" -ge 124 ] && echo " (124 and 137: its time was up)")" >"$kept/$name.status"
  fi
  tail -n 12 "$kept/$name.log"
  cat "$kept/$name.status"
  pack
  if [ "$name" = machine ] && [ "$code" -ne 0 ]; then
    echo "the backend cannot be used here: nothing else is tried"
    break
  fi
done <<<"$parts"
exit "$failed"
