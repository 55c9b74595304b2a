"""The MLP of equal cost and the product of low rank: gradients, cost, and what they learn."""

from __future__ import annotations

import pytest
import torch

from tests.drug_response.small_responses import (
    correlation,
    planted,
    response_batch,
    response_spec,
    train,
)
from torchcell.drug_response.models.base import GeneOptions, InputOptions
from torchcell.drug_response.models.mlp import ResponseMLP
from torchcell.io.errors import InputError

SMALL = {"inputs": InputOptions(width=16, hidden=24), "hidden": (24, 12), "genes": GeneOptions(width=16)}


def test_a_pair_costs_as_much_as_with_two_experts():
    hidden = ResponseMLP(response_spec()).pairs
    cost = hidden.second.weight.numel()
    assert cost == pytest.approx(2 * 256 * 128, rel=0.01)


@pytest.mark.parametrize("decoder", ["pairs", "product"])
def test_learns_planted_effects_better_than_the_mean_change(decoder):
    torch.manual_seed(0)
    spec = response_spec(drugs=40)
    model = ResponseMLP(spec, decoder=decoder, **SMALL)
    seen, held_out = (planted(spec, response_batch(spec, 200, seed=seed)) for seed in (3, 4))
    train(model, seen)
    predicted, mean = correlation(model, held_out)
    assert predicted > 0.62 > mean + 0.3  # plates say nothing here, which q starts far from


def test_an_unknown_choice_is_refused():
    with pytest.raises(InputError, match="model.decoder=.sum. is one of pairs, product"):
        ResponseMLP(response_spec(), decoder="sum")
