#!/usr/bin/env bash
# Proof and timings on a machine with a GPU that is there for minutes and has no network, from a source tree:
#
#     bash benchmarks/device.sh                   every part that is not done yet, the most valuable first
#     bash benchmarks/device.sh machine bfloat16  these parts, done or not
#
# The machine's own Python must have cupy, numba, numba-cuda, hypothesis, pytest and torch; wheels that lie in .whl/ are
# put before its own packages. docs/how-to/device.md says what to bring, what to type and what comes out.
#
# Every part is a process of its own with its own time limit: what hangs or crashes takes nothing else with it. LIMIT is
# the seconds of the whole call (570): a part is not begun with less than half its time, and is left for the next call.
# After each part all that there is goes into $OUT/device.tar and $OUT/summary.txt (OUT: build/device). To go on later,
# also on another machine, unpack device.tar in the source tree and call this again: parts that ended well are not done
# again, those that failed come last (KEPT: where results lie, build/device-kept; to record them, copy it over
# benchmarks/results/device, from which nothing is read here: what another commit did need not be true of this one).
#
# REHEARSAL=1 does it all without a device, on the pretend driver of tests/cuda, with small networks and few steps; what
# comes out is nowhere near a device's figures. PYTHON must have cupy, numba-cuda and the others; gcc is needed, too.
#
# GPU_OPTIONS: more for benchmarks/gpu.py, such as --compile-mode max-autotune-no-cudagraphs; CONV_OPTIONS: for
# conv_table.py; TRAIN_OPTIONS: for device_train.py. PHOTOS: a folder of photographs, a folder a class, that `train`
# learns (.photos).
#
# What it did on a device is in benchmarks/results/device; tests/cuda/test_pretend.py runs it on a pretend one.
set -uo pipefail
cd "$(dirname "$0")/.."
if [ -n "${REHEARSAL:-}" ]; then
  pretend=tests/cuda/pretend
  OUT=${OUT:-build/rehearsal} KEPT=${KEPT:-build/rehearsal/kept} LIMIT=${LIMIT:-7200} SITE=${SITE:-build/rehearsal/site}
  GPU_OPTIONS="--recipe $pretend/tiny.toml --batch-sizes 4 --rounds 2 --steps 2 --images 8 ${GPU_OPTIONS:-}"
  tiny="$PWD/$pretend/tiny.toml"
  TRAIN_OPTIONS="--recipe $tiny --classes 5 --copies 6 --batch-size 8 --epochs 2 --few-steps --shapes-step 1 ${TRAIN_OPTIONS:-}"
  SHAPES_OPTIONS="--data often --recipe $tiny --batch-size 8 --epochs 2 --views 1" # thousands of shapes would take hours
  CONV_OPTIONS="--batch-sizes 1 --seconds 5 ${CONV_OPTIONS:-}"
  export PYTHONPATH=$PWD:$PWD/backends:$PWD/benchmarks:$PWD/$pretend:$PWD/$pretend/everywhere${PYTHONPATH:+:$PYTHONPATH}
  export PYTEST_ADDOPTS="-p pretend_plugin" PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 PRETEND_CUDNN=1 PRETEND_NCCL=1
  export MINIALEX_CUDA_PLANS=off # timing plans at batch 1,024 is nothing for a processor
fi
OUT=${OUT:-build/device}
LIMIT=${LIMIT:-570}
PYTHON=${PYTHON:-python3}
SITE=${SITE:-/tmp/minialex-site}
kept=${KEPT:-build/device-kept}
mkdir -p "$OUT" "$kept"

# numba-cuda looks for NVVM and its libdevice in CUDA_HOME; an nvcc on the path may be a wrapper that lies elsewhere
toolkit() {
  local top nvcc
  nvcc=$(command -v nvcc) && nvcc=$(nvcc --dryrun -x cu -c /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p')
  for top in "${CUDA_HOME:-}" /usr/local/cuda /usr/local/cuda-13* "$nvcc"; do
    if [ -n "$top" ] && [ -e "$top/nvvm/libdevice/libdevice.10.bc" ]; then
      realpath "$top"
      return
    fi
  done
}
CUDA_HOME=$(toolkit)
if [ -n "$CUDA_HOME" ]; then export CUDA_HOME; else unset CUDA_HOME; fi

libraries=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib") + "/nvidia/cu13/lib")')
[ -d "$libraries" ] && export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
if compgen -G ".whl/*.whl" >/dev/null && [ ! -e "$SITE" ]; then
  "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$SITE" .whl/*.whl ||
    { echo "wheels: not installed" && rm -rf "$SITE"; }
fi
[ -d "$SITE" ] && PYTHONPATH=$SITE${PYTHONPATH:+:$PYTHONPATH}
[ -e "$kept/without-cudnn/cudnn.py" ] && PYTHONPATH=$kept/without-cudnn${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH=.:backends${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export MINIALEX_CUDA_PLANS=${MINIALEX_CUDA_PLANS:-$(realpath "$kept")/plans} # which of cuDNN's plans are taken: a result, too

tests() { # -W default: what other packages warn of here costs nothing; interrupted when its time is up, it tells what failed
  "$PYTHON" -c 'import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background a shell has it ignored
import pytest
sys.exit(pytest.main(sys.argv[1:]))' -q -W default -p no:cacheprovider -m gpu -rs --durations=10 tests/gpu "$@"
}
beside() { # the same, several at once where pytest-xdist is there: nearly all the time goes into compiling kernels
  local several=(-n 8)
  [ -n "${REHEARSAL:-}" ] || ! "$PYTHON" -c 'import xdist' 2>/dev/null && several=()
  MINIALEX_CUDA_PLANS=off tests "${several[@]}" "$@" # hundreds of small convolutions, and nothing that is timed alone
}
speed() { # precision, batch sizes, peers: what torch.compile makes of a network takes it a minute
  "$PYTHON" benchmarks/gpu.py --precisions "$1" --batch-sizes "$2" --peers "$3" --rates "$kept/rates.json" \
    --resume --out "$kept/$1.json" ${GPU_OPTIONS:-}
}
convolutions() { "$PYTHON" benchmarks/conv_table.py --seconds 60 --out "$kept/convolutions.json" ${CONV_OPTIONS:-}; }
train() { # the paper's network on photographs, and the README's command, through the command line
  if [ -n "${REHEARSAL:-}" ] && [ -z "${PHOTOS:-}" ]; then
    PHOTOS=$kept/photos
    "$PYTHON" -c 'import os, sys, numpy as np; from PIL import Image
for n in range(5):
    os.makedirs(f"{sys.argv[1]}/{n}", exist_ok=True)
    Image.fromarray(np.full((30, 40, 3), 50 * n, np.uint8)).save(f"{sys.argv[1]}/{n}/{n}.png")' "$PHOTOS"
  fi
  "$PYTHON" benchmarks/device_train.py --photos "${PHOTOS:-.photos}" --kept "$kept/train" \
    --shapes "${SHAPES_OPTIONS:-}" ${TRAIN_OPTIONS:-}
}
doctor() { "$PYTHON" -m minialex doctor --report "$kept/doctor.json"; }
machine() {
  nvidia-smi || true
  nvcc --version | tail -2 || true
  echo "CUDA_HOME ${CUDA_HOME:-is not set: no toolkit with nvvm/libdevice was found}"
  rm -rf "$kept/without-cudnn"
  MINIALEX_CUDA_PLANS=off "$PYTHON" benchmarks/gpu_smoke.py # that there are plans, not which is the quickest
  local code=$?
  [ "$code" -ne 3 ] && return "$code"
  mkdir -p "$kept/without-cudnn" # found before the real one, by every later part
  echo 'raise ImportError("hidden by benchmarks/device.sh: it failed on this machine")' >"$kept/without-cudnn/cudnn.py"
}

# name, seconds at most, what it does
parts='
machine        90  machine
proof         150  beside -k "float32 and (graph or streams) or papers"
kit-float32   200  beside -k "float32 and kit"
bfloat16      300  speed bfloat16 1024,128 torch.compile:1024,tuned
train         180  train
convolutions   90  convolutions
tf32          300  speed tf32 1024,128 torch.compile:1024,tuned:1024
float32       240  speed float32 1024,128 tuned:1024
kit-bfloat16  200  beside -k "bfloat16 and (graph or streams or kit)"
kit-tf32      200  beside -k "tf32 and (graph or streams or kit)"
nccl           60  tests -k nccl
memory        120  tests -k "thousand or two_devices or not_there"
bfloat16-256  150  speed bfloat16 256 tuned
doctor        120  doctor
'

pack() {
  for status in "$kept"/*.status; do
    [ -e "$status" ] && echo "$(basename "$status" .status): $(head -n 1 "$status")"
  done >"$OUT/summary.txt"
  tar cf "$OUT/device.tar.new" "$kept" 2>/dev/null && mv "$OUT/device.tar.new" "$OUT/device.tar"
}

boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)
state() { # of a part: done, failed or new; another machine is looked at anew
  if [ ! -e "$kept/$1.status" ] || { [ "$1" = machine ] && ! grep -q "$boot" "$kept/$1.status"; }; then
    echo new
  elif grep -q '^ended well' "$kept/$1.status"; then
    echo done
  elif [ "$1" = machine ]; then # nothing goes without it
    echo new
  else
    echo failed
  fi
}

for name in "$@"; do
  if ! grep -q "^$name " <<<"$parts"; then
    echo "error: there is no part '$name'; there are:" $(awk '{print $1}' <<<"$parts") >&2
    exit 2
  fi
done

export -f tests beside speed train convolutions doctor machine
export REHEARSAL PYTHON kept GPU_OPTIONS CONV_OPTIONS TRAIN_OPTIONS SHAPES_OPTIONS PHOTOS
wanted=" $* "
failed=0
fresh=() again=()
while read -r name seconds work; do
  [ -z "$name" ] && continue
  if [ $# -gt 0 ]; then
    [[ $wanted == *" $name "* ]] && fresh+=("$name $seconds $work")
  else
    case $(state "$name") in
    new) fresh+=("$name $seconds $work") ;;
    failed) again+=("$name $seconds $work") ;;
    esac
  fi
done <<<"$parts"

for part in "${fresh[@]}" "${again[@]}"; do
  read -r name seconds work <<<"$part"
  left=$((LIMIT - SECONDS))
  if [ $((2 * left)) -lt "$seconds" ]; then
    echo "== $name: left for the next call"
    continue
  fi
  [ -n "${REHEARSAL:-}" ] && seconds=$((10 * seconds)) # two busy cores instead of a device
  limit=$((left < seconds ? left : seconds))
  echo "== $name (at most $limit s)"
  began=$SECONDS
  timeout --signal=INT --kill-after=15 "$limit" bash -c "$work" >"$kept/$name.log" 2>&1 </dev/null
  code=$?
  took=$((SECONDS - began))
  if [ "$code" -eq 0 ]; then
    echo "ended well after $took s" >"$kept/$name.status"
  else
    failed=1
    echo "failed with $code after $took s$([ "$code" -ge 124 ] && echo " (124 and 137: its time was up)")" >"$kept/$name.status"
  fi
  tail -n 15 "$kept/$name.log"
  [ "$name" = machine ] && echo "boot $boot" >>"$kept/$name.status"
  head -n 1 "$kept/$name.status"
  pack
  if [ "$name" = machine ] && [ "$code" -ne 0 ]; then
    echo "the backend cannot be used here: nothing else is tried"
    break
  fi
  if [ -e "$kept/without-cudnn/cudnn.py" ] && [ "$name" = machine ]; then
    export PYTHONPATH=$kept/without-cudnn:$PYTHONPATH
  fi
  if [ "$name" = proof ] && [ "$code" -ne 0 ] && ! grep -qE '[0-9] passed|^[FEsx]*\.' "$kept/$name.log"; then
    echo "no test of the proof passes: nothing else is tried"
    break
  fi
done
cat "$OUT/summary.txt" 2>/dev/null
exit "$failed"
