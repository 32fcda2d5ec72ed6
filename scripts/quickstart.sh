#!/usr/bin/env bash
# From nothing to the results table: install, make sample data, train the three strategies from random weights on a
# CPU, recall, evaluate, and score a few pairs. All output goes to ./quickstart.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
PATH=$PWD/.venv/bin:$PATH
out=quickstart data=$out/data pair_file=$out/data/semantic_similar_pair.tsv
started=$SECONDS
say() { printf '\n== %s (%s s)\n' "$1" "$((SECONDS - started))"; }

say "sample data"
python scripts/make_sample_data.py --output_dir "$data"

# Baseline BatchNeg HardestNeg: the same encoder, data, number of pairs and learning rate.
for run in Baseline:pairwise BatchNeg:batch_neg HardestNeg:hardest_neg; do
  name=${run%:*} script=train_${run#*:}.py
  say "$name: train"
  python -u "$script" --device cpu --model_name_or_path configs/ernie_tiny --pooling mean \
    --train_set_file "$data/semantic_pair_train.tsv" --save_dir "$out/$name" --max_seq_length 48 --batch_size 128 \
    --epochs 1 --learning_rate 1E-3 --warmup_proportion 0.06 --margin 0.2 --logging_steps 50
  say "$name: recall"
  python -u recall.py --device cpu --params_path "$out/$name/latest/model_state.pdparams" --max_seq_length 48 \
    --similar_text_pair "$pair_file" --corpus_file "$data/corpus_file" --recall_num 50 --hnsw_m 32 --hnsw_ef 100 \
    --recall_result_dir "$out/$name" --recall_result_file "$name.txt"
done

say "score a few pairs with BatchNeg"
head -n 5 "$pair_file" >"$out/pairs.tsv"
python predict.py --device cpu --params_path "$out/BatchNeg/latest/model_state.pdparams" --max_seq_length 48 \
  --text_pair_file "$out/pairs.tsv" --output_file "$out/scored.tsv"
cat "$out/scored.tsv"

say "evaluate"
python evaluate.py --similar_pair_file "$pair_file" --part_file "$data/semantic_similar_pair.part" \
  --recall_result_file "$out/BatchNeg/BatchNeg.txt" \
  --compare_with "$out/Baseline/Baseline.txt" "$out/HardestNeg/HardestNeg.txt" \
  --plot "$out/recall.png" --output_json "$out/metrics.json" | tee "$out/evaluation.md"

say "result"
python scripts/results_table.py "$out/metrics.json" Baseline BatchNeg HardestNeg
printf '\nthe picture is %s, all figures are in %s; %s s\n' "$out/recall.png" "$out/evaluation.md" "$((SECONDS - started))"
