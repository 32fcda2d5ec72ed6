#!/usr/bin/env bash
# Install what the tests need, then lint, check types and run all tests. Further flags go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh dev
PATH=$PWD/.venv/bin:$PATH
ruff check .
mypy
coverage=(--cov=. --cov-report=term)
[ $# -gt 0 ] && coverage=()
python -m pytest ${coverage[@]+"${coverage[@]}"} "$@"
