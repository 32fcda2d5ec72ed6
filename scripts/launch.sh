# Sourced by the other scripts. `launch SCRIPT [FLAG ...]` starts a script of this project on $GPUS, or, with
# DEVICE=cpu, in $PROCESSES processes. One CPU process needs no launcher. The exit code is the script's.
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PATH=$project/.venv/bin:$PATH
started=$SECONDS

launch() {
  local script=$1 where=()
  shift
  if [ "$DEVICE" = cpu ] && [ "$PROCESSES" = 1 ]; then
    python -u "$project/$script" "$@"
    return
  fi
  if [ "$DEVICE" = cpu ]; then where=(--nproc_per_node "$PROCESSES"); else where=(--gpus "$GPUS"); fi
  python -u -m paddle.distributed.launch "${where[@]}" "$project/$script" "$@"
}

say() { printf '\n== %s (%s s)\n' "$1" "$((SECONDS - started))"; } # a heading, with the seconds since the start

fail() {
  echo "error: $*" >&2
  exit 2
}

# Sets `data` and `out` to the first two arguments, the folders of the data and of the output; the training flags behind
# them go to training alone, so one that other steps have to know too is a variable.
folders_of() {
  local file
  { [ $# -ge 2 ] && [[ $1 != -* && $2 != -* ]]; } ||
    fail "name the folders of the data and of the output before any flag; see the head of $0"
  data=${1%/} out=${2%/}
  for file in "$data/semantic_pair_train.tsv" "$data/corpus_file"; do
    [ -f "$file" ] || fail "$file is missing; the head of $0 says what the folder of the data holds"
  done
  [[ " ${*:3} " != *" --max_seq_length"* ]] || fail "set MAX_SEQ_LENGTH in place of --max_seq_length"
}
