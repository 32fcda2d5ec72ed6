#!/usr/bin/env bash
# Print the cosine of each text pair. Further flags are passed on, for example --output_file scored.tsv.
set -euo pipefail

DEVICE=${DEVICE:-gpu}                    # gpu or cpu
GPUS=${GPUS:-0}
PROCESSES=${PROCESSES:-1}
PARAMS_PATH=${PARAMS_PATH:-./checkpoints/latest/model_state.pdparams}
TEXT_PAIR_FILE=${TEXT_PAIR_FILE:-text_pairs.tsv}

source "$(dirname "$0")/launch.sh"
launch predict.py --device "$DEVICE" --params_path "$PARAMS_PATH" --batch_size 128 --max_seq_length 64 \
  --text_pair_file "$TEXT_PAIR_FILE" "$@"
