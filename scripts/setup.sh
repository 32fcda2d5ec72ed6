#!/usr/bin/env bash
# Make the environment .venv in the project folder if it is missing or its requirements have changed.
#
#   bash scripts/setup.sh                 CPU
#   PADDLE=gpu bash scripts/setup.sh      GPU: paddlepaddle-gpu from Paddle's own index
#   bash scripts/setup.sh dev             also what the tests need
#
# PYTHON names the interpreter (default: the newest of 3.11, 3.12, 3.10, 3.9 that is there).
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "error: $1" >&2; exit 2; }

if [ ! -x .venv/bin/python ]; then
  python=${PYTHON:-}
  if [ -z "$python" ]; then
    for version in 3.11 3.12 3.10 3.9; do
      if "python$version" -c "" 2>/dev/null; then python=python$version; break; fi
    done
  fi
  "${python:-python3}" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null ||
    fail "no Python 3.9 to 3.12 found; install one and name it with PYTHON=/path/to/python"
fi

# What the environment was made from; one made for the tests serves a plain run too.
wanted="$(cat requirements.lock requirements-gpu.txt requirements-dev.txt | cksum) ${PADDLE:-cpu} ${1:-}"
case "$(cat .venv/installed 2>/dev/null || true)" in "$wanted"*) exit 0 ;; esac

# hnswlib comes as source only.
command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null ||
  fail "hnswlib needs a C++ compiler; install one (Debian, Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install)"

[ -x .venv/bin/python ] || "${python:-python3}" -m venv .venv || fail "could not make .venv; Debian and Ubuntu: apt-get install python3-venv"
[ -f "$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] ||
  fail "hnswlib needs the Python headers; install them (Debian, Ubuntu: apt-get install python3-dev; Fedora: dnf install python3-devel)"

echo "installing into .venv (some minutes the first time; log: .venv/install.log)" >&2
requirements=(-r requirements.lock)
if [ "${PADDLE:-cpu}" = gpu ]; then
  grep -v '^paddlepaddle==' requirements.lock >.venv/lock-gpu.txt
  requirements=(-r .venv/lock-gpu.txt -r requirements-gpu.txt)
fi
[ "${1:-}" = dev ] && requirements+=(-r requirements-dev.txt)
get() { .venv/bin/python -m pip install --disable-pip-version-check "$@" >>.venv/install.log 2>&1; }
: >.venv/install.log
get pip==25.3 && get "${requirements[@]}" || { # the pip that comes with Python 3.10 can't build seqeval
  tail -n 15 .venv/install.log >&2
  fail "installation failed; the whole log is in .venv/install.log"
}
echo "$wanted" >.venv/installed
