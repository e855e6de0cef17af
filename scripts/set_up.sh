#!/usr/bin/env bash
# Make .venv and install the project into it, editable, at the versions of constraints.txt. Safe to repeat.
#
#   PYTHON  the interpreter to build on (default: python3; 3.11 or newer)
#   TORCH   auto: the CPU build unless nvidia-smi lists a GPU; cpu; gpu
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
TORCH=${TORCH:-auto}
CPU_INDEX=https://download.pytorch.org/whl/cpu

say() { printf 'set-up: %s\n' "$*"; }
fail() { printf 'set-up: error: %s\n  mend: %s\n' "$1" "$2" >&2; exit 3; }

command -v "$PYTHON" >/dev/null || fail "$PYTHON is not installed" "install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.12 …"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$PYTHON is $("$PYTHON" --version 2>&1); 3.11 or newer is needed" "name a newer one: make PYTHON=python3.12 …"

# A .venv that no longer starts (its interpreter went away) is made anew; one that works is kept.
if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
  say "making .venv with $("$PYTHON" --version)"
  "$PYTHON" -m venv --clear .venv || fail "the virtual environment cannot be made" "install venv for this Python (on Debian: apt-get install python3-venv)"
fi
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

case $TORCH in
  auto) if nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then TORCH=gpu; else TORCH=cpu; fi ;;
  cpu | gpu) ;;
  *) fail "TORCH=$TORCH is not a kind of torch" "say TORCH=auto, TORCH=cpu or TORCH=gpu" ;;
esac

# The pinned torch, as a CPU build where no GPU asks for more: the default Linux wheel drags in gigabytes of CUDA.
# PyTorch's own index is asked only where pip's configured sources have no CPU build.
version=$(sed -n 's/^torch==//p' constraints.txt)
installed=$(.venv/bin/python -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null || true)
from=()
wanted="torch==$version"
if [ "$TORCH" = cpu ] && [ "$installed" != "$version+cpu" ]; then
  if pip install --quiet --dry-run --no-deps --ignore-installed "torch==$version+cpu" >/dev/null 2>&1; then
    wanted="torch==$version+cpu"
  elif .venv/bin/python -c "import urllib.request; urllib.request.urlopen('$CPU_INDEX/torch/', timeout=5)" 2>/dev/null; then
    wanted="torch==$version+cpu"
    from=(--extra-index-url "$CPU_INDEX")
  else
    say "no CPU build of torch $version within reach: taking the default one (several GB)"
  fi
elif [ "$TORCH" = gpu ] && [[ $installed == *+cpu ]]; then
  pip uninstall --quiet --yes torch
fi
if [ "$installed" != "$version+cpu" ] || [ "$TORCH" = gpu ]; then
  say "installing $wanted ($TORCH) and what it needs; a minute or two"
  pip install -qq --constraint constraints.txt ${from[@]+"${from[@]}"} "$wanted"
fi

say "installing the project and its tools; about a minute"
pip install -qq --constraint constraints.txt --editable '.[dev]'
say "done: $(.venv/bin/crrl --version)"
