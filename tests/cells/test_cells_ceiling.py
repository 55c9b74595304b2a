"""The split-half ceiling of cells scores what the noiseless mean scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from torchcell.cells.baselines import split_half_ceiling
from torchcell.cells.metrics import pds, pearson_delta_perturbed
from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.record import CellExpression
from torchcell.evaluation.metrics import (
    ProfileContext,
    Profiles,
    mae_over_genes,
    mse_over_genes,
    pearson_delta,
)

GENES = 400


def measured(effect: float, shared: float, noise: float, cells: int = 20, controls: int = 60, n: int = 40):
    """Cells of conditions with effects of their own and a shared one; and the noiseless means."""
    rng = np.random.default_rng(0)
    basal = rng.uniform(14.0, 16.0, GENES)
    means = basal + shared * rng.normal(size=GENES) + effect * rng.normal(size=(n, GENES))
    condition = np.concatenate([np.full(controls, n), np.repeat(np.arange(n), cells)])
    level = np.vstack([means, basal])[condition]
    table = CellExpression(
        name="planted",
        X=(level + rng.normal(0.0, noise, level.shape)).astype(np.float32),
        perturbation=np.array([*(f"p{i:02d}" for i in range(n)), "control"])[condition],
        is_control=condition == n,
        genes=np.array([f"G{i}" for i in range(GENES)]),
        sample_id=np.array([f"c{i}" for i in range(len(condition))]),
        scale="lognorm",
    )
    return Pseudobulk.from_cells(table), means, basal


def profiles(record: Pseudobulk, prediction: np.ndarray, center: np.ndarray) -> Profiles:
    truth = record.target.astype(float)
    tiled = np.broadcast_to(center, truth.shape)
    return Profiles(truth, prediction.astype(float), ProfileContext(record.eval_control, record.input_control, tiled))


@pytest.mark.parametrize(("effect", "shared"), [(0.5, 0.5), (0.5, 0.0), (0.1, 1.0), (0.2, 0.0)])
@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_correlations_of_changes_and_errors_are_those_of_the_noiseless_mean(effect, shared, noise) -> None:
    record, means, _ = measured(effect, shared, noise)
    order = [int(label[1:]) for label in record.perturbation.tolist()]
    ceiling = profiles(record, split_half_ceiling(record), means.mean(0))
    noiseless = profiles(record, means[order], means.mean(0))
    for one in (pearson_delta, pearson_delta_perturbed):
        assert one(ceiling).mean() == pytest.approx(one(noiseless).mean(), abs=0.04), one.__name__
    for one in (mse_over_genes, mae_over_genes):
        assert one(ceiling).mean() == pytest.approx(one(noiseless).mean(), rel=0.05), one.__name__
    assert pds(ceiling).mean() == pytest.approx(pds(noiseless).mean(), abs=0.06)


def test_cells_without_an_effect_have_no_ceiling_to_speak_of() -> None:
    record, means, _ = measured(0.0, 0.0, 2.0)
    found = profiles(record, split_half_ceiling(record), means.mean(0))
    half = profiles(record, np.stack([record.cells.X[record.members(i)[:10]].mean(0) for i in range(40)]), means[0])
    assert pearson_delta(half).mean() > 0.4  # what half against all would claim
    assert abs(pearson_delta(found).mean()) < 0.15


def test_one_cell_has_no_halves_and_order_changes_nothing() -> None:
    record, _, _ = measured(0.5, 0.5, 1.0, n=6)
    order = np.random.default_rng(1).permutation(6)
    whole = split_half_ceiling(record)
    np.testing.assert_allclose(split_half_ceiling(record.subset(order)), whole[order], atol=1e-5)
    assert whole.dtype == np.float32
    assert np.isfinite(split_half_ceiling(record.subset(np.array([2])))).all()
    keep = np.concatenate([np.arange(1), np.arange(20, len(record.member))])
    short = replace(record, member=record.member[keep], ptr=np.maximum(record.ptr - 19, 0))
    found = split_half_ceiling(short)
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1:]).all()
