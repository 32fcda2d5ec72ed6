#!/usr/bin/env bash
# Train a model. Edit the variables or set them in the environment; further flags are passed on:
#   STRATEGY=hardest_neg DEVICE=cpu bash scripts/run_train.sh --logging_steps 1
set -euo pipefail

STRATEGY=${STRATEGY:-batch_neg}          # batch_neg, hardest_neg or pairwise
DEVICE=${DEVICE:-gpu}                    # gpu or cpu
GPUS=${GPUS:-0}                          # of --device gpu: "0,1,2,3" runs four ranks
PROCESSES=${PROCESSES:-1}                # of --device cpu
TRAIN_SET_FILE=${TRAIN_SET_FILE:-semantic_pair_train.tsv}
SAVE_DIR=${SAVE_DIR:-./checkpoints/}
MODEL=${MODEL:-ernie-1.0}

source "$(dirname "$0")/launch.sh"
launch "train_$STRATEGY.py" --device "$DEVICE" --save_dir "$SAVE_DIR" --model_name_or_path "$MODEL" \
  --batch_size 64 --learning_rate 5E-5 --epochs 3 --output_emb_size 256 --save_steps 500 --max_seq_length 64 \
  --margin 0.2 --train_set_file "$TRAIN_SET_FILE" "$@"
