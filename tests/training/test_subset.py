"""``data.subset`` takes the same samples whatever the run's seed: seeds of a trial are scored on one test part.

It was drawn by the run's seed, so that three seeds of ``+debug=fast`` had three splits and could not be compared.
"""

from __future__ import annotations

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from torchcell.training import build as assemble
from torchcell.training.entry import conf_dir

EXPERIMENTS = {
    "simulated_dango": "data.subset=400",
    "simulated_chemoe": "data.subset=400",
    "simulated_hgt": "data.subset=300",
    "simulated_perturbseq": "data.subset=60",
}
"""One of each record kind."""


def split_of(experiment: str, *overrides: str):
    given = [f"+experiment={experiment}", "+debug=fast", EXPERIMENTS[experiment], *overrides]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return assemble.datamodule(compose("config", given)).split


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_samples_of_a_trial_are_drawn_by_the_splits_seed_alone(experiment):
    one, other = split_of(experiment), split_of(experiment, "seed=7")
    assert sum(one.counts().values()) == int(EXPERIMENTS[experiment].partition("=")[2])
    assert one.hash == other.hash
    assert split_of(experiment, "split.seed=1").hash != one.hash


def test_a_trial_of_many_edge_types_keeps_one_edge_a_fold_of_each():
    """``+experiment=hetionet5k_hgt +debug=fast`` was refused: of 24 edge types the drawn candidates had no CpD."""
    given = ["+experiment=simulated_hgt", "data.record.edge_types=all", "data.subset=60"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        data = assemble.datamodule(compose("config", given))
    record = data.record_whole
    edges = {name: int((record.positive & (record.edge_type == name)).sum()) for name in record.supervised}
    assert len(edges) > 3
    assert min(edges.values()) == 10, "split=edges has ten folds"
    assert all(len(np.unique(data.split.part[record.edge_type == name])) >= 3 for name in record.supervised)
