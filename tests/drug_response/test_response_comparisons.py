"""Additive latent space and latent shift: gradients, batches of one, what they learn, what they refuse."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest
import torch

from tests.drug_response.small_responses import (
    correlation,
    planted,
    response_batch,
    response_spec,
    train,
)
from torchcell.drug_response.models.additive import AdditiveLatent
from torchcell.drug_response.models.base import InputOptions
from torchcell.drug_response.models.latent_shift import LatentShift
from torchcell.io.errors import InputError

INPUTS = InputOptions(width=16, hidden=24)
MODELS = [partial(AdditiveLatent, inputs=INPUTS, hidden=24), partial(LatentShift, inputs=INPUTS, latent=8, hidden=24)]
NAMED = pytest.mark.parametrize("make", MODELS, ids=["additive", "shift"])


@NAMED
def test_learns_planted_effects_better_than_the_mean_change(make):
    torch.manual_seed(0)
    spec = response_spec(drugs=40)
    model = make(spec)
    seen, held_out = (planted(spec, response_batch(spec, 200, seed=seed)) for seed in (3, 4))
    train(model, seen, steps=120)
    predicted, mean = correlation(model, held_out)
    assert predicted > mean + 0.3


def test_without_a_dose_part_nothing_adds_but_basal_line_and_the_molecules_share():
    spec = response_spec()
    model, batch = MODELS[0](spec).eval(), response_batch(spec, 4)
    with torch.no_grad():
        model.strength.weight.zero_()
        model.strength.bias.fill_(-50.0)
    other = dataclasses.replace(batch, drug=(batch.drug + 1) % 12)
    torch.testing.assert_close(model(batch), model(other))


def test_divergence_of_equal_distributions_is_zero_and_terms_are_named():
    spec = response_spec()
    model, batch = MODELS[1](spec), response_batch(spec)
    assert list(model.losses(batch, model(batch)))[3:] == ["basal", "change", "kl", "match"]
    _, q, _ = model._latents(batch)
    assert float(q.divergence(q).detach()) == pytest.approx(0.0, abs=1e-6)


def test_a_missing_value_of_the_change_is_left_out_of_its_reconstruction():
    spec = response_spec()
    model, batch = MODELS[1](spec).eval(), response_batch(spec)
    target = batch.target.clone()
    target[0] = torch.nan
    terms = model.losses(dataclasses.replace(batch, target=target), model(batch))
    assert all(torch.isfinite(term) for term in terms.values())


def test_inputs_that_a_model_needs_are_asked_for():
    spec = response_spec()
    with pytest.raises(InputError, match=r"keep inputs\.basal and inputs\.dose"):
        AdditiveLatent(spec, inputs=InputOptions(dose=False))
    with pytest.raises(InputError, match=r"inputs\.basal=change"):
        LatentShift(spec, inputs=InputOptions(basal="raw"))
