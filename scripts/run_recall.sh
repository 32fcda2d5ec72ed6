#!/usr/bin/env bash
# Recall the nearest texts of the corpus for every evaluation source. Further flags are passed on.
set -euo pipefail

DEVICE=${DEVICE:-gpu}                    # gpu or cpu
GPUS=${GPUS:-0}
PROCESSES=${PROCESSES:-1}
PARAMS_PATH=${PARAMS_PATH:-./checkpoints/latest/model_state.pdparams}
PAIR_FILE=${PAIR_FILE:-semantic_similar_pair.tsv}
CORPUS_FILE=${CORPUS_FILE:-corpus_file}
RECALL_RESULT_DIR=${RECALL_RESULT_DIR:-recall_result_dir}
RECALL_RESULT_FILE=${RECALL_RESULT_FILE:-recall_result.txt}

source "$(dirname "$0")/launch.sh"
launch recall.py --device "$DEVICE" --recall_result_dir "$RECALL_RESULT_DIR" \
  --recall_result_file "$RECALL_RESULT_FILE" --params_path "$PARAMS_PATH" --hnsw_m 100 --hnsw_ef 100 --batch_size 64 \
  --max_seq_length 60 --recall_num 50 --similar_text_pair "$PAIR_FILE" --corpus_file "$CORPUS_FILE" "$@"
