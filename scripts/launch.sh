# Sourced by the run_*.sh wrappers: `launch SCRIPT [FLAG ...]` starts a script of this project on $GPUS, or, with
# DEVICE=cpu, in $PROCESSES processes. One CPU process needs no launcher. The exit code is the script's.
launch() {
  local project script=$1 where=()
  project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  shift
  PATH=$project/.venv/bin:$PATH
  if [ "$DEVICE" = cpu ] && [ "$PROCESSES" = 1 ]; then
    python -u "$project/$script" "$@"
    return
  fi
  if [ "$DEVICE" = cpu ]; then where=(--nproc_per_node "$PROCESSES"); else where=(--gpus "$GPUS"); fi
  python -u -m paddle.distributed.launch "${where[@]}" "$project/$script" "$@"
}
