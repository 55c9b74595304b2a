#!/usr/bin/env bash
# The tables of this study, from the project's root: TORCHCELL_MIRROR=PATH experiments/009-priors/run.sh
# Other baselines of held-out queries say nothing of a gene that was never measured, or are far below network_neighbors
# (001-yeast-interactions), and are left out.
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
none="baselines.query_pair_mean=null baselines.embedding_sum_mlp=null baselines.gradient_boosting=null"
without_profiles="baselines.low_rank_als=null baselines.profile_neighbors=null"
here=experiments/009-priors
for fold in 0 4; do
  .venv/bin/python $here/compare.py $here/query_disjoint_$fold benchmark=costanzo2010_ontology split=query_disjoint \
    split.fold=$fold $none $without_profiles
done
