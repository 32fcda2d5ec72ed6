#!/usr/bin/env bash
# From nothing to the results table: install, make sample data, train the three strategies from random weights on a
# CPU, recall, evaluate, and score a few pairs. All output goes to ./quickstart. TRAIN_PAIRS, EVAL_PAIRS and CORPUS_TEXTS
# set the size of the sample data.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS
bash scripts/setup.sh
PATH=$PWD/.venv/bin:$PATH
out=${OUTPUT_DIR:-quickstart}

printf '\n== sample data (%s s)\n' "$((SECONDS - started))"
python scripts/make_sample_data.py --output_dir "$out/data" --train_pairs "${TRAIN_PAIRS:-20000}" \
  --eval_pairs "${EVAL_PAIRS:-1000}" --corpus_texts "${CORPUS_TEXTS:-20000}"
bash scripts/compare_strategies.sh "$out/data" "$out" "$@"

printf '\n== a few pairs, scored by BatchNeg (%s s)\n' "$((SECONDS - started))"
head -n 5 "$out/data/semantic_similar_pair.tsv" >"$out/pairs.tsv"
python predict.py --device cpu --params_path "$out/BatchNeg/latest/model_state.pdparams" --max_seq_length 48 \
  --text_pair_file "$out/pairs.tsv" --output_file "$out/scored.tsv"
cat "$out/scored.tsv"
printf '\n%s s in all\n' "$((SECONDS - started))"
