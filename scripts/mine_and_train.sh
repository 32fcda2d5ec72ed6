#!/usr/bin/env bash
# Mine and train in turn: each round takes its negatives from the corpus with the last round's checkpoint, and trains on
# from it (as in ANCE, arXiv:2007.00808). Start it again after a stop: what is finished stays, training goes on.
#
#   ROUNDS=3 bash scripts/mine_and_train.sh DATA_DIR OUTPUT_DIR [training flag ...]
#
# DATA_DIR holds semantic_pair_train.tsv and corpus_file; with semantic_similar_pair.tsv (semantic_similar_pair.part for
# figures by part) the last checkpoint is evaluated. Round N writes to OUTPUT_DIR/round_N. Round 1 trains without mined
# negatives, unless START names a checkpoint to mine with and to train on from.
set -euo pipefail
[ $# -ge 2 ] || { echo "error: name the folders of the data and of the output; see the head of $0" >&2; exit 2; }
data=$1 out=$2
shift 2

ROUNDS=${ROUNDS:-2}
START=${START:-}
[[ $ROUNDS =~ ^[1-9][0-9]*$ ]] || { echo "error: ROUNDS=$ROUNDS is not a whole number above 0" >&2; exit 2; }
STRATEGY=${STRATEGY:-batch_neg}          # batch_neg, hardest_neg or pairwise
DEVICE=${DEVICE:-cpu}
GPUS=${GPUS:-0}                          # of DEVICE=gpu; mining and recall run on one process
PROCESSES=${PROCESSES:-1}                # of DEVICE=cpu
MODEL=${MODEL:-configs/ernie_tiny}
MAX_SEQ_LENGTH=${MAX_SEQ_LENGTH:-48}
MINING=${MINING:---num_negatives 1 --range_min 5 --range_max 50 --max_similarity_ratio 0.95}
ANN=${ANN:---hnsw_m 32 --hnsw_ef 100}    # of the recall at the end; mining is exact

source "$(dirname "$0")/launch.sh"
project=$(cd "$(dirname "$0")/.." && pwd)
PATH=$project/.venv/bin:$PATH
started=$SECONDS
say() { printf '\n== %s (%s s)\n' "$1" "$((SECONDS - started))"; }

last=$START
for ((round = 1; round <= ROUNDS; round++)); do
  folder=$out/round_$round
  train_set=$data/semantic_pair_train.tsv
  init=()
  mkdir -p "$folder"
  if [ -n "$last" ]; then
    train_set=$folder/train_mined.tsv
    init=(--init_from_ckpt "$last")
    # shellcheck disable=SC2206 # MINING is a list of flags
    mining=(--params_path "$last" --max_seq_length "$MAX_SEQ_LENGTH" --seed "$round" $MINING)
    if [ ! -f "$train_set" ]; then
      say "round $round: mine"
      printf '%s\n' "${mining[*]}" >"$folder/mining_flags"
      python -u "$project/mine_hard_negatives.py" --device "$DEVICE" --train_set_file "$data/semantic_pair_train.tsv" \
        --corpus_file "$data/corpus_file" --output_file "$train_set" "${mining[@]}"
    elif [ "$(cat "$folder/mining_flags")" != "${mining[*]}" ]; then
      echo "error: $train_set was mined with $(cat "$folder/mining_flags"), now it is ${mining[*]}; set it back, or" \
        "name another folder for the output" >&2
      exit 2
    fi
    rm -rf "$folder/mining_index" # of a checkpoint that no other round mines with
  fi
  say "round $round: train"
  launch "train_$STRATEGY.py" --device "$DEVICE" --model_name_or_path "$MODEL" --pooling mean \
    --max_seq_length "$MAX_SEQ_LENGTH" --batch_size 128 --epochs 1 --learning_rate 1E-3 --warmup_proportion 0.06 \
    --margin 0.2 --logging_steps 50 "$@" --train_set_file "$train_set" --save_dir "$folder" --resume \
    ${init[@]+"${init[@]}"}
  last=$folder/latest/model_state.pdparams
done

[ -f "$data/semantic_similar_pair.tsv" ] || exit 0
if [ ! -f "$folder/recall_result.txt" ]; then
  say "recall"
  # shellcheck disable=SC2086 # ANN is a list of flags
  python -u "$project/recall.py" --device "$DEVICE" --params_path "$last" --max_seq_length "$MAX_SEQ_LENGTH" \
    --similar_text_pair "$data/semantic_similar_pair.tsv" --corpus_file "$data/corpus_file" --recall_num 50 $ANN \
    --recall_result_dir "$folder"
fi
if [ ! -f "$folder/evaluation.md" ]; then
  say "evaluate"
  part_file=()
  [ -f "$data/semantic_similar_pair.part" ] && part_file=(--part_file "$data/semantic_similar_pair.part")
  python "$project/evaluate.py" --similar_pair_file "$data/semantic_similar_pair.tsv" \
    ${part_file[@]+"${part_file[@]}"} --recall_result_file "$folder/recall_result.txt" >"$folder/evaluation.tmp"
  mv "$folder/evaluation.tmp" "$folder/evaluation.md"
fi
say "result: $folder/evaluation.md"
cat "$folder/evaluation.md"
