#!/usr/bin/env bash
# The lambda sweep on the simulated cell, and the transformer on Costanzo and Kuzmin; with JOBS=2 on two cores an hour and a half.
#   TORCHCELL_MIRROR=PATH [PYTHON=python] [JOBS=1] [SEEDS="0 1 2"] experiments/003-cell-graph-transformer/run.sh [simulated|real]
source "$(dirname "$0")/../../scripts/study.sh"
parts simulated real

# The sweep's own schedule is twice as long as the experiment's, so that what takes off late is not cut short.
LONG="trainer.max_epochs=80 ~model.scheduler +model.scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau"
LONG="$LONG +model.scheduler._partial_=true +model.scheduler.mode=max +model.scheduler.factor=0.3 +model.scheduler.patience=10"

if wanted simulated; then
    for seed in $SEEDS; do
        for weight in 1.0 0.0 0.1 0.01 0.001; do
            for networks in "" _random_networks; do
                [ "$weight$networks" = 0.0_random_networks ] && continue # the same as the true ones
                echo "simulated +experiment=simulated_cgt model=cell_graph_transformer$networks split=query_disjoint model.graph_loss.weight=$weight seed=$seed $LONG"
            done
        done
        echo "simulated +experiment=simulated_cgt model=cell_graph_transformer_hard_mask split=query_disjoint seed=$seed $LONG"
        echo "simulated +experiment=simulated_cgt split=random seed=$seed $LONG"
        for split in query_disjoint random; do # with the experiment's own schedule
            echo "shipped +experiment=simulated_cgt split=$split seed=$seed"
        done
        echo "compared +experiment=simulated_dango split=query_disjoint seed=$seed"
    done | train
    "$PYTHON" "$OUT/controls.py" "$RUNS/simulated" -o "$OUT/simulated"
fi

if wanted real; then
    {
        for seed in $SEEDS; do
            echo "real +experiment=costanzo2010_cgt split=query_disjoint seed=$seed"
        done
        echo "real +experiment=costanzo2010_cgt split=query_disjoint model.graph_loss.weight=0.0"
        echo "real +experiment=costanzo2010_cgt model=cell_graph_transformer_random_networks split=query_disjoint"
        echo "real +experiment=costanzo2010_cgt split=query_disjoint graph=yeast data.features.terms=0 name=costanzo2010_cgt_without_go"
        echo "real +experiment=costanzo2010_cgt split=random model.embedding.imputation.untrained_rate=0.0"
        echo "real +experiment=kuzmin2018_cgt split=query_disjoint"
        echo "real +experiment=kuzmin2018_cgt split=random"
    } | train
    "$PYTHON" "$OUT/controls.py" "$RUNS/real" -o "$OUT/costanzo" --names costanzo2010_cgt
fi

"$PYTHON" -m torchcell.collect "$RUNS" -o "$OUT/table.csv"
