#!/usr/bin/env bash
# CheMoE and what it is compared with on drug response; some two hours on two cores.
#   TORCHCELL_MIRROR=PATH [PYTHON=python] [JOBS=1] [SEEDS="0 1 2"] experiments/005-chemoe/run.sh [simulated|level3|folds|level5|published|ablation|lines]
# lines: the 45 short runs of lines.txt (nine lines, five folds) on the simulated set; scripts/slurm/array.sbatch runs the same list on a cluster.
source "$(dirname "$0")/../../scripts/study.sh"
parts simulated level3 folds level5 published ablation lines

if wanted simulated; then
    for split in cold_drug random; do
        echo "simulated +experiment=simulated_chemoe split=$split name=simulated_chemoe_$split"
    done | train
fi
if wanted level3; then
    for seed in $SEEDS; do
        for split in cold_drug random; do
            echo "level3 +experiment=l1000_chemoe split=$split seed=$seed name=l1000_chemoe_$split"
        done
        echo "level3 +experiment=l1000_chemoe split=cold_cell data.cell_line=null seed=$seed name=l1000_chemoe_cold_cell"
    done | train
fi
if wanted folds; then # all five folds as tests, for one verdict over all drugs; settings were chosen on the validation scores of folds 1 to 4
    for fold in 0 1 2 3 4; do
        for split in cold_drug random; do
            echo "folds +experiment=l1000_chemoe split=$split split.fold=$fold name=l1000_chemoe_${split}_folds"
        done
    done | train
fi
if wanted level5; then
    echo "level5 +experiment=l1000_level5_chemoe" | train
fi
if wanted published; then # the mixture falls to one expert, and the output to a constant for ten epochs
    echo "published +experiment=chemoe_published" | train
fi
if wanted ablation; then # on the random split: on held-out drugs of fold 0 validation takes next to nothing of any network
    {
        shared="+experiment=l1000_chemoe split=random"
        for router in dense uniform hash; do
            echo "ablation $shared model.router.choice=$router name=l1000_chemoe_router_$router"
        done
        echo "ablation $shared model.prior=null name=l1000_chemoe_no_prior"
        # One network in place of the experts.
        for model in response_product "response_mlp model.hidden=[32,16]"; do
            echo "ablation $shared model=$model model.dropout=0.3 name=l1000_${model%% *}"
        done
        echo "ablation $shared model=response_mlp model.hidden=[32,16] name=l1000_response_mlp_no_dropout"
        for model in additive_latent latent_shift; do
            echo "ablation $shared model=$model name=l1000_$model"
        done
        graphs="data.molecules._target_=torchcell.drug_response.molecules.MoleculeGraphs ~data.molecules.bits ~data.molecules.radius"
        echo "ablation $shared model=chemoe_graph model.expert.hidden=[16,8] model.expert.dropout=0.3 $graphs name=l1000_chemoe_graph"
    } | train
fi
if wanted lines; then
    grep -v '^#' experiments/005-chemoe/lines.txt | sed 's/^/lines +experiment=simulated_chemoe /' | train
fi

"$PYTHON" -m torchcell.collect "$RUNS" -o "$OUT/table.csv"
