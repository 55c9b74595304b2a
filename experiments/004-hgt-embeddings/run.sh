#!/usr/bin/env bash
# HGT embeddings beside the link baselines, the collapse made on purpose, and full batch against mini-batch; hours on two cores.
#   TORCHCELL_MIRROR=PATH [PYTHON=python] [JOBS=1] [SEEDS="0 1 2"] experiments/004-hgt-embeddings/run.sh [simulated|core|all|batches]
source "$(dirname "$0")/../../scripts/study.sh"
parts simulated core all batches

if wanted simulated; then
    {
        for seed in $SEEDS; do echo "simulated +experiment=simulated_hgt seed=$seed"; done
        # Two faults seen elsewhere, on purpose: what does the report call them?
        constant=model._target_=torchcell.knowledge_graph.models.hgt_embedder.model.ConstantInputHGT
        echo "bce +experiment=simulated_hgt model.losses.links=bce model.prior=null name=simulated_hgt_bce"
        echo "collapse +experiment=simulated_hgt $constant name=simulated_hgt_constant_inputs"
        echo "collapse +experiment=simulated_hgt model.encoder.residual=0.0 model.encoder.degrees=false name=simulated_hgt_no_residual"
        echo "collapse +experiment=simulated_hgt $constant model.encoder.residual=0.0 model.encoder.degrees=false name=simulated_hgt_both"
    } | train
    "$PYTHON" "$OUT/loss_curve.py" "$RUNS"/bce/simulated_hgt_bce/*/history.csv -o "$OUT/simulated/loss_curve.png"
fi
if wanted core; then
    for seed in $SEEDS; do echo "core +experiment=hetionet_hgt seed=$seed"; done | train
    for run in "$RUNS"/core/hetionet_hgt/*-s0; do
        "$PYTHON" -m torchcell.embed ckpt="$run/checkpoints/best.ckpt" out="$run/embeddings.h5ad"
        "$PYTHON" "$OUT/downstream.py" "$run/checkpoints/best.ckpt" "$run/embeddings.h5ad" -o "$OUT/core"
        "$PYTHON" "$OUT/disease_similarity.py" "$run/checkpoints/best.ckpt" "$run/embeddings.h5ad" -o "$OUT/core"
    done
fi
if wanted all; then
    printf '%s\n' "all +experiment=hetionet_hgt_all" "all +experiment=hetionet5k_hgt" | train
fi
if wanted batches; then # the same model, the whole graph a step against sampled parts of it
    {
        echo "batches +experiment=hetionet_hgt trainer.max_epochs=6 name=full_batch"
        echo "batches +experiment=hetionet_hgt trainer.max_epochs=6 name=mini_batch model.sampling.fan_outs=[16,16] data.batch_size=114 trainer.accumulate_grad_batches=4"
    } | train
fi

"$PYTHON" -m torchcell.collect "$RUNS" -o "$OUT/table.csv"
