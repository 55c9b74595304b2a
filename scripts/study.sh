# What the studies' run.sh share; they source it from their own folder. Set beforehand, or left at these:
#   PYTHON  interpreter, .venv/bin/python            JOBS  runs side by side, 1; more than one: a thread each
#   SEEDS   "0 1 2"                                  RUNS  folder of the runs, runs/NUMBER of the study
#   OUT     folder of tables and plots, the study's own
set -euo pipefail
study=$(dirname "$(realpath "$0")")
cd "$study/../.."
PYTHON=${PYTHON:-.venv/bin/python}
JOBS=${JOBS:-1}
SEEDS=${SEEDS:-0 1 2}
RUNS=${RUNS:-runs/$(basename "$study" | cut -d- -f1)}
OUT=${OUT:-experiments/$(basename "$study")}
WHAT=${1:-every}
export WANDB_MODE=${WANDB_MODE:-offline} WANDB_SILENT=true
if [ "$JOBS" -gt 1 ]; then export OMP_NUM_THREADS=1; fi

ASKED=$#

parts() { # the study's parts, one of which may be asked for
    for part in every "$@"; do
        if [ "$part" = "$WHAT" ] && [ "$ASKED" -le 1 ]; then return; fi
    done
    echo "ask for one part or for none, not for $WHAT; this study has: ${*:-no parts}" >&2
    exit 2
}
wanted() { [ "$WHAT" = every ] || [ "$WHAT" = "$1" ]; } # whether this part of the study was asked for

train() { # a run for each line: a folder below RUNS, then overrides
    xargs -P "$JOBS" -L 1 bash -c '"$0" -m torchcell.train paths.runs="$1/$2" "${@:3}" overwrite=true' "$PYTHON" "$RUNS"
}
