"""The least-squares start: before any step the transformer says what the training pairs were."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.screen.small_transformers import N, fit, make, make_batch, make_spec


def planted(task: str = "regression", size: int = 2, outputs: int = 1) -> tuple[Tensor, Tensor]:
    """Sets and what the products of their members' two factors add up to [B, T]."""
    u_TNF = torch.randn(outputs, N, 2, generator=torch.Generator().manual_seed(0))
    sets = torch.combinations(torch.arange(N), size)
    sets = sets[torch.randperm(len(sets), generator=torch.Generator().manual_seed(1))[:200]]
    total_TBF, square_TBF = u_TNF[:, sets].sum(2), u_TNF[:, sets].square().sum(2)
    y = ((total_TBF.square() - square_TBF) / 2).sum(-1).T
    return sets, (y > 0).float() if task == "binary" else y


@pytest.mark.parametrize(
    ("task", "size", "outputs", "least"),
    [("regression", 2, 1, 0.98), ("regression", 2, 2, 0.98), ("binary", 2, 1, 0.9), ("regression", 3, 1, 0.85)],
)
def test_the_least_squares_start_says_what_the_training_pairs_were_before_any_step(task, size, outputs, least):
    sets, y = planted(task, size, outputs)
    spec = make_spec(outputs=("a", "b")[:outputs], task=task, center=0.4, scale=float(y.std()))
    batch = make_batch(sets.tolist(), target=y)
    model = make(spec, readout__pairs__width=8 * outputs, readout__pairs__penalty=0.5).eval()
    with torch.no_grad():
        before, _ = model(batch), model.start_pairs(batch)
        predicted = model(batch)
    for t in range(outputs):
        assert np.corrcoef(predicted[:, t], y[:, t])[0, 1] > least > np.corrcoef(before[:, t], y[:, t])[0, 1]
    if task == "regression" and size == 2:
        assert (predicted - y).square().mean() < 0.3 * y.square().mean(), "in the target's own units"


def test_a_set_without_a_measured_pair_starts_as_the_wild_type_and_not_as_the_mean():
    sets, y = planted()
    spec = make_spec(center=0.7, scale=2.0)
    model = make(spec, readout__pairs__width=8).eval()
    with torch.no_grad():
        model.start_pairs(make_batch(sets.tolist(), target=y))
        torch.testing.assert_close(model(make_batch([(5,), (7,)])), torch.zeros(2, 1), atol=1e-6, rtol=0.0)


def test_every_parameter_still_gets_a_gradient_after_the_start_and_the_loss_falls():
    sets, y = planted()
    batch = make_batch(sets.tolist(), target=y)
    model = make(
        make_spec(center=float(y.mean()), scale=float(y.std())), readout__pairs__width=8, graph_loss__weight=0.0
    )
    model.start_pairs(batch)
    losses = fit(model, batch, 30, lr=3e-3)
    assert losses[-1] < losses[0]
    assert all(parameter.grad is not None for parameter in model.parameters())
    dead = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert dead == []


def test_factors_that_are_not_trained_stay_as_they_started():
    sets, y = planted()
    batch = make_batch(sets.tolist(), target=y)
    model = make(readout__pairs__width=8, readout__pairs__trained=False)
    model.start_pairs(batch)
    held = model.pairs.vectors.table.weight.clone()
    fit(model, batch, 2)
    assert torch.equal(model.pairs.vectors.table.weight, held)
