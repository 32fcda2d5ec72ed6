#!/usr/bin/env bash
# Evaluate a result file of recall.py. Further flags are passed on, for example --plot recall.png.
set -euo pipefail

PAIR_FILE=${PAIR_FILE:-semantic_similar_pair.tsv}
RECALL_RESULT=${RECALL_RESULT:-./recall_result_dir/recall_result.txt}

project=$(dirname "$0")/..
PATH=$project/.venv/bin:$PATH
python -u "$project/evaluate.py" --similar_pair_file "$PAIR_FILE" --recall_result_file "$RECALL_RESULT" \
  --recall_num 50 "$@"
