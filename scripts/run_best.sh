#!/usr/bin/env bash
# The best recall known here, in one command: train with BatchNeg, mine hard negatives with the result, train on with
# them; recall exactly, by BM25 and by both together, and compare. What each step adds: docs/results.md.
#
#   bash scripts/run_best.sh DATA_DIR OUTPUT_DIR [training flag ...]
#   bash scripts/run_best.sh DATA_DIR OUTPUT_DIR --model_name_or_path my_encoder [training flag ...]
#
# DATA_DIR holds semantic_pair_train.tsv and corpus_file; with semantic_similar_pair.tsv (and semantic_similar_pair.part,
# for figures by part) the result is evaluated. Without --model_name_or_path an encoder of 4 x 256 starts from random
# weights, with the characters of these texts as its vocabulary. Start it again after a stop: what is finished stays,
# training goes on.
set -euo pipefail
[ $# -ge 2 ] || { echo "error: name the folders of the data and of the output; see the head of $0" >&2; exit 2; }
data=$1 out=$2
shift 2
for file in "$data/semantic_pair_train.tsv" "$data/corpus_file"; do
  [ -f "$file" ] || { echo "error: $file is missing; see the head of $0 for what the folder of the data holds" >&2; exit 2; }
done

DEVICE=${DEVICE:-cpu}
GPUS=${GPUS:-0}                          # of DEVICE=gpu; mining and recall run on one process
PROCESSES=${PROCESSES:-1}                # of DEVICE=cpu
MAX_SEQ_LENGTH=${MAX_SEQ_LENGTH:-48}
RANKING=${RANKING:-}                     # --keep_self: plain ranking, in which the source keeps its own place

source "$(dirname "$0")/launch.sh"
project=$(cd "$(dirname "$0")/.." && pwd)
PATH=$project/.venv/bin:$PATH
started=$SECONDS
say() { printf '\n== %s (%s s)\n' "$1" "$((SECONDS - started))"; }

if [[ " $*" == *" --model_name_or_path"* ]]; then # it bears small steps only, and needs few
  model=() first=(--epochs 2 --learning_rate 1E-4) second=(--epochs "${MINED_EPOCHS:=0}" --learning_rate 5E-5)
else
  model=(--model_name_or_path "$out/encoder")
  first=(--epochs 4 --learning_rate 1E-3) second=(--epochs "${MINED_EPOCHS:=2}" --learning_rate 5E-4)
fi

make_encoder() { # in $1, with the vocabulary of the texts
  mkdir -p "$1"
  python "$project/scripts/make_vocab.py" --output "$1/vocab.txt" "$data/semantic_pair_train.tsv" "$data/corpus_file"
  cat >"$1/config.tmp" <<END
{"architectures": ["ErnieModel"], "model_type": "ernie", "vocab_size": $(wc -l <"$1/vocab.txt"), "hidden_size": 256,
 "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024, "hidden_act": "gelu",
 "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 128,
 "type_vocab_size": 2, "initializer_range": 0.02, "pad_token_id": 0}
END
  mv "$1/config.tmp" "$1/config.json"
}

train() { # on the pairs $1, to $2
  launch train_batch_neg.py --device "$DEVICE" --pooling mean --max_seq_length "$MAX_SEQ_LENGTH" --batch_size 256 \
    --warmup_proportion 0.06 --margin 0.2 --scale 30 --logging_steps 50 --keep_checkpoints 1 --resume \
    --train_set_file "$1" --save_dir "$2" "${@:3}"
}

if [ ${#model[@]} -gt 0 ] && [ ! -f "$out/encoder/config.json" ]; then
  say "encoder"
  make_encoder "$out/encoder"
fi

say "train"
train "$data/semantic_pair_train.tsv" "$out/train" ${model[@]+"${model[@]}"} "${first[@]}" "$@"
last=$out/train/latest/model_state.pdparams

if [ "$MINED_EPOCHS" != 0 ]; then
  if [ ! -f "$out/train_mined.tsv" ]; then
    say "mine"
    python -u "$project/mine_hard_negatives.py" --device "$DEVICE" --params_path "$last" \
      --max_seq_length "$MAX_SEQ_LENGTH" --train_set_file "$data/semantic_pair_train.tsv" \
      --corpus_file "$data/corpus_file" --output_file "$out/train_mined.tsv" \
      --num_negatives 1 --range_min 5 --range_max 50 --max_similarity_ratio 0.95
  fi
  rm -rf "$out/mining_index" # of a checkpoint that nothing else is recalled with
  say "train with mined negatives"
  train "$out/train_mined.tsv" "$out/train_mined" ${model[@]+"${model[@]}"} "${second[@]}" "$@" --init_from_ckpt "$last"
  last=$out/train_mined/latest/model_state.pdparams
fi
say "model: $last"

[ -f "$data/semantic_similar_pair.tsv" ] || exit 0
files=(--similar_text_pair "$data/semantic_similar_pair.tsv" --corpus_file "$data/corpus_file"
  --recall_num 50 --recall_result_dir "$out")
say "recall by the model"
# shellcheck disable=SC2086 # RANKING is a list of flags
python -u "$project/recall.py" --device "$DEVICE" --params_path "$last" --max_seq_length "$MAX_SEQ_LENGTH" \
  --ann_engine flat "${files[@]}" --recall_result_file model.txt $RANKING
say "recall by BM25, and both together"
# shellcheck disable=SC2086
python -u "$project/lexical_recall.py" "${files[@]}" --recall_result_file bm25.txt $RANKING
python "$project/fuse.py" --recall_result_file "$out/model.txt" "$out/bm25.txt" --method scores --weights 0.7 0.3 \
  --output_file "$out/fused.txt"

say "evaluate"
part_file=()
[ -f "$data/semantic_similar_pair.part" ] && part_file=(--part_file "$data/semantic_similar_pair.part")
# shellcheck disable=SC2086
python "$project/evaluate.py" --similar_pair_file "$data/semantic_similar_pair.tsv" ${part_file[@]+"${part_file[@]}"} \
  --recall_result_file "$out/fused.txt" --compare_with "$out/model.txt" "$out/bm25.txt" $RANKING \
  --plot "$out/recall.png" --output_json "$out/metrics.json" | tee "$out/evaluation.tmp"
mv "$out/evaluation.tmp" "$out/evaluation.md"
say "result: $out/evaluation.md"
