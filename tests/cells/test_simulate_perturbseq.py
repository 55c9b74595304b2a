"""The simulated perturb-seq holds what was planted: spread along a network, synergy, lines, dropout."""

from __future__ import annotations

import numpy as np
import pytest

from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.simulate import SimulatedPerturbSeq, perturbseq_networks, simulate_perturbseq, simulated_perturbseq
from torchcell.io.errors import InputError


@pytest.fixture(scope="module")
def made() -> SimulatedPerturbSeq:
    return simulate_perturbseq(n_genes=120, n_lines=1)


@pytest.fixture(scope="module")
def record(made: SimulatedPerturbSeq) -> Pseudobulk:
    return Pseudobulk.from_cells(made.cells.lognorm(), ["cell_line"])


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]))


def test_measured_changes_are_the_planted_ones(made: SimulatedPerturbSeq, record: Pseudobulk) -> None:
    place = {label: i for i, label in enumerate(made.labels.tolist())}
    planted = made.effect[0, [place[label] for label in record.perturbation.tolist()]]
    assert correlation(record.target - record.eval_control, planted) > 0.75


def test_what_regulators_of_a_module_do_predicts_one_that_is_unseen(
    made: SimulatedPerturbSeq, record: Pseudobulk
) -> None:
    """So network features can win where the mean of the training perturbations can not."""
    module = dict(zip(made.labels.tolist(), made.module.tolist(), strict=False))
    single = [i for i, label in enumerate(record.perturbation.tolist()) if "+" not in label]
    of = np.array([module[record.perturbation[i]] for i in single])
    change, other = (record.target[single] - half[single] for half in (record.eval_control, record.input_control))
    others = ~np.eye(len(single), dtype=bool)
    mates = np.stack([other[(of == of[i]) & others[i]].mean(0) for i in range(len(single))])
    mean = np.stack([other[others[i]].mean(0) for i in range(len(single))])
    assert correlation(change, mates) > 0.5
    assert correlation(change, mean) < 0.3
    interaction = next(network for network in made.networks if network.name == "interaction")
    joined = zip(interaction.source.tolist(), interaction.target.tolist(), strict=True)
    same = [module[a] == module.get(b) for a, b in joined]
    assert 0.75 < np.mean(same) < 1


def test_doubles_are_not_all_additive(made: SimulatedPerturbSeq) -> None:
    synergy = made.synergy[48:]
    assert (np.abs(synergy).max(1) > 0).mean() > 0.5
    assert not made.synergy[:48].any()


def test_lines_differ_and_counts_are_counts_with_dropout() -> None:
    few = {"n_genes": 30, "n_regulators": 16, "n_doubles": 2, "cells_per_condition": 30}
    made = simulate_perturbseq(**few, n_lines=3)
    assert made.effect.shape == (3, 18, 30)
    assert not np.allclose(made.effect[0], made.effect[1])
    assert made.cells.scale == "counts"
    assert made.cells.is_control.sum() == 3 * 150
    full = simulate_perturbseq(**few, n_lines=3, dropout=0)
    assert made.cells.X.nnz < full.cells.X.nnz
    assert len(simulated_perturbseq(**few, n_lines=3)) == 54


def test_same_seed_same_bytes_and_the_networks_do_not_depend_on_the_cells() -> None:
    few = {"n_genes": 30, "n_regulators": 16, "n_doubles": 2, "cells_per_condition": 3}
    a, b = simulate_perturbseq(**few), simulate_perturbseq(**few)
    np.testing.assert_array_equal(a.cells.target, b.cells.target)
    assert (simulate_perturbseq(**few, seed=1).cells.target.shape) == a.cells.target.shape
    for one, other in zip(a.networks, perturbseq_networks(30, 16), strict=True):
        np.testing.assert_array_equal(one.source, other.source)
        np.testing.assert_array_equal(one.target, other.target)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_lines": 9}, "there are 4 lines"),
        ({"n_regulators": 4}, "between 16 and n_genes=200"),
        ({"n_doubles": 5000}, "only 1128 pairs"),
    ],
)
def test_what_can_not_be_simulated_is_answered(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate_perturbseq(**options)
