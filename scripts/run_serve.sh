#!/usr/bin/env bash
# Serve a saved index, with a page to search it. Further flags are passed on: --index NAME=DIR and --params_path for a
# second one beside it.
set -euo pipefail

DEVICE=${DEVICE:-gpu}                    # gpu or cpu
PARAMS_PATH=${PARAMS_PATH:-./checkpoints/latest/model_state.pdparams}
INDEX_DIR=${INDEX_DIR:-recall_result_dir/index}
NAME=${NAME:-corpus}
PORT=${PORT:-8000}

source "$(dirname "$0")/launch.sh"
exec python -u "$project/serve.py" --device "$DEVICE" --index "$NAME=$INDEX_DIR" --params_path "$PARAMS_PATH" \
  --port "$PORT" "$@"
