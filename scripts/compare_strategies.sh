#!/usr/bin/env bash
# Train Baseline, BatchNeg and HardestNeg on the same pairs with the same encoder and settings, recall with each, and
# end with the results table and a picture.
#
#   bash scripts/compare_strategies.sh DATA_DIR OUTPUT_DIR [training flag ...]
#
# DATA_DIR holds semantic_pair_train.tsv, semantic_similar_pair.tsv, corpus_file and, for figures by part,
# semantic_similar_pair.part. RANKING=--keep_self gives the plain ranking, in which the source itself keeps its place.
set -euo pipefail
source "$(dirname "$0")/launch.sh"
[ $# -ge 2 ] || fail "name the folder of the data and the folder for the output; see the head of $0"
data=$1 out=$2
shift 2

DEVICE=${DEVICE:-cpu}
MODEL=${MODEL:-configs/ernie_tiny}
MAX_SEQ_LENGTH=${MAX_SEQ_LENGTH:-48}
ANN=${ANN:---hnsw_m 32 --hnsw_ef 100}
RANKING=${RANKING:-}

for run in Baseline:pairwise BatchNeg:batch_neg HardestNeg:hardest_neg; do
  name=${run%:*}
  say "$name: train"
  python -u "$project/train_${run#*:}.py" --device "$DEVICE" --model_name_or_path "$MODEL" --pooling mean \
    --train_set_file "$data/semantic_pair_train.tsv" --save_dir "$out/$name" --max_seq_length "$MAX_SEQ_LENGTH" \
    --batch_size 128 --epochs 1 --learning_rate 1E-3 --warmup_proportion 0.06 --margin 0.2 --logging_steps 50 "$@"
  say "$name: recall"
  # shellcheck disable=SC2086 # ANN and RANKING are lists of flags
  python -u "$project/recall.py" --device "$DEVICE" --params_path "$out/$name/latest/model_state.pdparams" \
    --max_seq_length "$MAX_SEQ_LENGTH" --similar_text_pair "$data/semantic_similar_pair.tsv" \
    --corpus_file "$data/corpus_file" --recall_num 50 $ANN $RANKING \
    --recall_result_dir "$out/$name" --recall_result_file "$name.txt"
done

say "evaluate"
part_file=()
[ -f "$data/semantic_similar_pair.part" ] && part_file=(--part_file "$data/semantic_similar_pair.part")
python "$project/evaluate.py" --similar_pair_file "$data/semantic_similar_pair.tsv" ${part_file[@]+"${part_file[@]}"} $RANKING \
  --recall_result_file "$out/BatchNeg/BatchNeg.txt" \
  --compare_with "$out/Baseline/Baseline.txt" "$out/HardestNeg/HardestNeg.txt" \
  --plot "$out/recall.png" --output_json "$out/metrics.json" | tee "$out/evaluation.md"

say "result"
python "$project/scripts/results_table.py" "$out/metrics.json" Baseline BatchNeg HardestNeg
printf '\nall figures: %s\npicture:     %s\n' "$out/evaluation.md" "$out/recall.png"
