#!/usr/bin/env bash
# The gene-set transformer beside all baselines, on splits that hold out perturbations, pairs of them, or lines.
#   TORCHCELL_MIRROR=PATH [PYTHON=python] [JOBS=1] [SEEDS="0 1 2"] experiments/006-gene-subset-expression/run.sh [unseen|folds|combination|lines|attention|curriculum|memory]
source "$(dirname "$0")/../../scripts/study.sh"
parts unseen folds combination lines attention curriculum memory

if wanted unseen; then # a gene that training never perturbed
    for seed in $SEEDS; do
        echo "unseen +experiment=simulated_perturbseq seed=$seed name=simulated_unseen"
        echo "unseen +experiment=papalexi2021_set seed=$seed name=papalexi_unseen"
    done | train
fi
if wanted folds; then # all five folds as tests, for one verdict over all perturbations and pairs: a fold holds out five, or four
    for fold in 0 1 2 3 4; do
        echo "folds +experiment=papalexi2021_set split.fold=$fold name=papalexi_folds"
        echo "folds +experiment=norman_mcfaline_set split.fold=$fold name=norman_pairs_folds"
    done | train
fi
if wanted combination; then # pairs, with none, one or both genes perturbed alone in training
    for seed in $SEEDS; do
        shared="+experiment=simulated_perturbseq split=combination seed=$seed"
        echo "combination $shared model.prior=additive model.prior_use=average trainer.max_epochs=80 name=simulated_combination_singles"
        echo "combination $shared name=simulated_combination" # the network alone
        echo "combination +experiment=norman_mcfaline_set seed=$seed name=norman_combination"
    done | train
fi
if wanted lines; then # a line, or a cell type, with all its perturbations
    for seed in $SEEDS; do
        echo "lines +experiment=simulated_perturbseq data.record.n_lines=4 split=cold_cell split.n_folds=4 seed=$seed name=simulated_lines"
        for fold in 0 1 2 3; do
            echo "lines +experiment=norman_mcfaline_set split=cold_cell split.n_folds=4 split.fold=$fold seed=$seed name=norman_lines"
        done
        for fold in 0 1 2; do # of seven types: with five folds some hold one, which can't be resampled
            echo "lines +experiment=kang2018_panel split.n_folds=3 split.fold=$fold seed=$seed name=kang_types"
        done
    done | train
fi
if wanted attention; then # full against lists of neighbors and against induced points
    for seed in $SEEDS; do
        for attention in neighbors induced; do
            echo "attention +experiment=simulated_perturbseq model.encoder.attention=$attention seed=$seed name=simulated_$attention"
            echo "attention +experiment=papalexi2021_set model.encoder.attention=$attention seed=$seed name=papalexi_$attention"
        done
    done | train
fi
if wanted curriculum; then # the same tokens, 24 epochs over all genes, spent in phases or on all genes from the start
    for seed in $SEEDS; do
        shared="+experiment=kang2018_panel callbacks=curriculum callbacks.curriculum.budget=24 seed=$seed"
        echo "curriculum $shared name=kang_phases"
        echo "curriculum $shared callbacks.curriculum.phases=[{epoch:0,genes:null}] name=kang_all_genes"
    done | train
fi
if wanted memory; then # of a step, against the number of genes; a few minutes
    "$PYTHON" "$OUT/attention_memory.py" -o "$OUT"
    if [ "$WHAT" = memory ]; then exit; fi
fi

"$PYTHON" -m torchcell.collect "$RUNS" -o "$OUT/table.csv"
