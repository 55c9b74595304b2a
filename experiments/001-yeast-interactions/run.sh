#!/usr/bin/env bash
# All runs of this study, from the project's root. Each run takes some minutes on one core;
# JOBS of them go side by side with one thread each. Finished runs are left alone.
#   TORCHCELL_MIRROR=PATH JOBS=2 experiments/001-yeast-interactions/run.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" WANDB_MODE="${WANDB_MODE:-offline}" WANDB_SILENT=true
runs="${RUNS:-runs}"
# The experiment's settings were chosen on the validation part of Costanzo's held-out split, and Kuzmin takes them untuned;
# these were chosen on the validation part of Costanzo's random split.
random="model=dango_own_decoder split=random model.embedding.decay=0.3 model.loss_weights.reconstruction=1 data.batch_size=2048"
commands() {
  for seed in 0 1 2; do
    echo "seed=$seed +experiment=costanzo2010_dango split=query_disjoint paths.runs=$runs"
    echo "seed=$seed +experiment=costanzo2010_dango $random paths.runs=$runs"
    echo "seed=$seed +experiment=kuzmin2018_dango split=query_disjoint paths.runs=$runs"
    echo "seed=$seed +experiment=kuzmin2018_dango split=random paths.runs=$runs"
  done
}
one() { # a run that is there already is left alone; any other failure is told, and fails the study at its end
  log="$RUNS_LOG/$(echo "$1" | tr -c 'A-Za-z0-9_=\n' '-' | cut -c1-120).log"
  if .venv/bin/python -m torchcell.train $1 > "$log.part" 2>&1; then mv "$log.part" "$log"; echo "done: $1"; return; fi
  if grep -q "already holds a run" "$log.part"; then rm "$log.part"; echo "there already: $1"; return; fi
  echo "FAILED: $1, see $log.part"; return 1
}
export -f one
export RUNS_LOG="$runs/logs"
mkdir -p "$RUNS_LOG"
commands | xargs -P "${JOBS:-2}" -I {} bash -c 'one "{}"'
for kind in csv md; do
  .venv/bin/python -m torchcell.collect "$runs"/costanzo2010_dango "$runs"/kuzmin2018_dango \
    -o experiments/001-yeast-interactions/table.$kind
done
