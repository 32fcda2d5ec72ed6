#!/usr/bin/env bash
# Mine and train in turn: each round takes its negatives from the corpus with the last round's checkpoint, and trains on
# from it (as in ANCE, arXiv:2007.00808). Start it again after a stop: what is finished stays, training goes on.
#
#   ROUNDS=3 bash scripts/mine_and_train.sh DATA_DIR OUTPUT_DIR [training flag ...]
#
# DATA_DIR holds semantic_pair_train.tsv and corpus_file. Round N writes to OUTPUT_DIR/round_N. Round 1 trains without
# mined negatives, unless START names a checkpoint to mine with and to train on from.
set -euo pipefail

ROUNDS=${ROUNDS:-2}
START=${START:-}
STRATEGY=${STRATEGY:-batch_neg}          # batch_neg, hardest_neg or pairwise
DEVICE=${DEVICE:-cpu}
GPUS=${GPUS:-0}                          # of DEVICE=gpu; mining runs on one process
PROCESSES=${PROCESSES:-1}                # of DEVICE=cpu
MAX_SEQ_LENGTH=${MAX_SEQ_LENGTH:-48}     # of training and mining
FIRST=${FIRST:---epochs 1 --learning_rate 1E-3} # training flags of the rounds that begin without a checkpoint
LATER=${LATER:-$FIRST}                   # and of those that train on
MINING=${MINING:---num_negatives 1 --range_min 5 --range_max 50 --max_similarity_ratio 0.95}

source "$(dirname "$0")/launch.sh"
MODEL=${MODEL:-$project/configs/ernie_tiny}
folders_of "$@"
shift 2
[[ $ROUNDS =~ ^[1-9][0-9]*$ ]] || fail "ROUNDS=$ROUNDS is not a whole number above 0"

sums_of() { for file in "$@"; do cksum <"$file" | tr ' \n' '-,'; done; }

last=$START
[ ! -d "$last" ] || last=$last/model_state.pdparams
for ((round = 1; round <= ROUNDS; round++)); do
  folder=$out/round_$round
  train_set=$data/semantic_pair_train.tsv
  init=()
  settings=$FIRST
  mkdir -p "$folder"
  if [ -n "$last" ]; then
    train_set=$folder/train_mined.tsv
    init=(--init_from_ckpt "$last")
    settings=$LATER
    # shellcheck disable=SC2206 # MINING is a list of flags
    mining=(--params_path "$last" --max_seq_length "$MAX_SEQ_LENGTH" --seed "$round" $MINING)
    made_from="${mining[*]:2}; checkpoint, pairs and corpus: $(
      sums_of "$last" "$data/semantic_pair_train.tsv" "$data/corpus_file")"
    if [ ! -f "$train_set" ]; then
      say "round $round: mine"
      printf '%s\n' "$made_from" >"$folder/mined_from"
      python -u "$project/mine_hard_negatives.py" --device "$DEVICE" --train_set_file "$data/semantic_pair_train.tsv" \
        --corpus_file "$data/corpus_file" --output_file "$train_set" "${mining[@]}"
    elif [ "$(cat "$folder/mined_from")" != "$made_from" ]; then
      fail "$train_set was mined with $(cat "$folder/mined_from"), now it is $made_from; set it back, or name another" \
        "folder for the output"
    fi
    rm -rf "$folder/mining_index" # of a checkpoint that no other round mines with
  fi
  say "round $round: train"
  # shellcheck disable=SC2086 # settings are a list of flags
  launch "train_$STRATEGY.py" --device "$DEVICE" --model_name_or_path "$MODEL" --pooling mean \
    --max_seq_length "$MAX_SEQ_LENGTH" --batch_size 256 --warmup_proportion 0.06 --margin 0.2 \
    --logging_steps 50 --keep_checkpoints 1 $settings "$@" --train_set_file "$train_set" --save_dir "$folder" --resume \
    ${init[@]+"${init[@]}"}
  last=$folder/latest/model_state.pdparams
done
say "the last round's model: $last"
