#!/usr/bin/env bash
# The best recall known here, in one command: train with BatchNeg on all pairs of texts of a batch, recall exactly by the
# model, by BM25 and by both together, and compare. What each of these adds: docs/results.md.
#
#   bash scripts/run_best.sh DATA_DIR OUTPUT_DIR [training flag ...]
#   bash scripts/run_best.sh DATA_DIR OUTPUT_DIR --model_name_or_path my_encoder [training flag ...]
#
# DATA_DIR holds semantic_pair_train.tsv and corpus_file; with semantic_similar_pair.tsv the result is evaluated, by
# part if there is a semantic_similar_pair.part. Without --model_name_or_path an encoder of 4 x 256 starts from random
# weights, with the characters of these texts as its vocabulary and embeddings warmed up on the corpus. Start it again
# after a stop: what is finished stays, training goes on. ROUNDS=2 also mines hard negatives with the result and trains on
# with them; further settings are in mine_and_train.sh.
set -euo pipefail

export ROUNDS=${ROUNDS:-1}
export DEVICE=${DEVICE:-cpu}
export MAX_SEQ_LENGTH=${MAX_SEQ_LENGTH:-48}
RANKING=${RANKING:-}                     # --keep_self: plain ranking, in which the source keeps its own place

source "$(dirname "$0")/launch.sh"
folders_of "$@"
shift 2

make_encoder() { # $1, by way of the folder $1.config
  local config=$1.config
  mkdir -p "$config"
  python "$project/scripts/make_vocab.py" --output "$config/vocab.txt" "$data/semantic_pair_train.tsv" \
    "$data/corpus_file"
  cat >"$config/config.json" <<END
{"architectures": ["ErnieModel"], "model_type": "ernie", "vocab_size": $(wc -l <"$config/vocab.txt"),
 "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024, "hidden_act": "gelu",
 "hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0, "max_position_embeddings": 128, "type_vocab_size": 2,
 "initializer_range": 0.02, "pad_token_id": 0}
END
  python "$project/pretrain_embeddings.py" --model_name_or_path "$config" --train_set_file "$data/corpus_file" \
    --save_dir "$1"
}

if [[ " $*" == *" --model_name_or_path"* ]]; then # pretrained weights bear small steps only, and need few
  export FIRST="--epochs 2 --learning_rate 1.5E-4 --dropout 0" LATER="--epochs 1 --learning_rate 7.5E-5 --dropout 0"
else
  export FIRST="--epochs 6 --learning_rate 1E-3" LATER="--epochs 2 --learning_rate 5E-4"
  export MODEL=$out/encoder
  [ -d "$MODEL" ] || { say "encoder" && make_encoder "$MODEL"; }
fi
scale=(--scale 20)
[ "${STRATEGY:-batch_neg}" = batch_neg ] || scale=() # which is the scale of that loss alone
bash "$project/scripts/mine_and_train.sh" "$data" "$out" --all_pairs --no_length_bucketing ${scale[@]+"${scale[@]}"} "$@"
[ -f "$data/semantic_similar_pair.tsv" ] || exit 0

say "recall by the model"
files=(--similar_text_pair "$data/semantic_similar_pair.tsv" --corpus_file "$data/corpus_file"
  --recall_num 50 --recall_result_dir "$out")
# shellcheck disable=SC2086 # RANKING is a list of flags
python -u "$project/recall.py" --device "$DEVICE" --params_path "$out/round_$ROUNDS/latest/model_state.pdparams" \
  --max_seq_length "$MAX_SEQ_LENGTH" --ann_engine flat "${files[@]}" --recall_result_file model.txt $RANKING

say "recall by BM25, and by both together"
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
