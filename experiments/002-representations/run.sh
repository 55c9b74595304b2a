#!/usr/bin/env bash
# Accuracy of index, lazy and k-hop on one split, and the profile of each; two cores: about an hour.
#   TORCHCELL_MIRROR=PATH [PYTHON=python] [JOBS=2] [SEEDS="0 1 2"] experiments/002-representations/run.sh
source "$(dirname "$0")/../../scripts/study.sh"
parts

{
    for seed in $SEEDS; do
        for split in query_disjoint random; do
            for kind in index lazy khop1 khop2 khop3; do echo "simulated_gnn_$kind $split $seed"; done
        done
        for kind in index lazy; do echo "costanzo2010_gnn_$kind query_disjoint $seed"; done
    done
    echo "costanzo2010_gnn_khop1 query_disjoint 0" # half an hour on one core, so one seed
} | xargs -P "$JOBS" -L 1 bash -c \
    '"$0" -m torchcell.train +experiment="$2" split="$3" seed="$4" paths.runs="$1" overwrite=true' "$PYTHON" "$RUNS"

"$PYTHON" -m torchcell.collect "$RUNS" -o "$OUT/table.csv"

unset OMP_NUM_THREADS
"$PYTHON" -m torchcell.profile +experiment=simulated_gnn_lazy profile.out="$OUT/simulated"
"$PYTHON" -m torchcell.profile +experiment=costanzo2010_gnn_lazy profile.out="$OUT/yeast"
"$PYTHON" -m torchcell.profile data=synthetic graph=synthetic model=perturbed_cell_gnn name=synthetic \
    profile.batch_size=28 profile.out="$OUT/synthetic"
"$PYTHON" -m torchcell.profile +experiment=simulated_gnn_lazy trainer=ddp_cpu profile.out="$OUT/simulated_ddp"
