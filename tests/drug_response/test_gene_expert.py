"""An expert on pairs of sample and gene: blocks, no samples, memory."""

from __future__ import annotations

import pytest
import torch

from tests.nn.largest_tensor import LargestTensor
from torchcell.drug_response.models.chemoe.model import GeneExpert


@pytest.mark.parametrize("chunk", [1, 3, 7, 14, 20, 1000])
def test_blocks_change_neither_values_nor_gradients(chunk):
    torch.manual_seed(0)
    whole = GeneExpert(6, 5, (8, 4), chunk=1000).double()
    parts = GeneExpert(6, 5, (8, 4), chunk=chunk).double()
    parts.load_state_dict(whole.state_dict())
    h, gamma = torch.randn(5, 6).double(), torch.randn(7, 5).double()
    answers = []
    for expert in (whole, parts):
        value = expert(h, gamma)
        answers.append((value, *torch.autograd.grad(value.square().sum(), list(expert.parameters()))))
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_no_samples_give_no_rows_and_gradients_of_zero():
    expert = GeneExpert(6, 5, (8, 4))
    value = expert(torch.randn(0, 6), torch.randn(7, 5))
    assert value.shape == (0, 7)
    value.sum().backward()
    assert all(p.grad is not None for p in expert.parameters())


def test_the_product_is_added_to_what_the_pairs_say():
    torch.manual_seed(0)
    expert, h, gamma = GeneExpert(6, 4, (8, 4), product=3).double(), torch.randn(5, 6).double(), torch.randn(7, 4)
    gamma = gamma.double()
    pairs = GeneExpert(6, 4, (8, 4)).double()
    pairs.load_state_dict({name: v for name, v in expert.state_dict().items() if not name.startswith("product")})
    added = torch.einsum("bd,gd->bg", expert.product(h), gamma) / 2
    torch.testing.assert_close(expert(h, gamma), pairs(h, gamma) + added)
    assert expert(h[:0], gamma).shape == (0, 7)


def test_no_tensor_has_a_row_of_the_first_layers_input_for_each_pair():
    """B x G x (H + D) would be 64 * 500 * 96 numbers."""
    expert = GeneExpert(64, 32, (32, 16), chunk=2_000)
    h, gamma = torch.randn(64, 64), torch.randn(500, 32)
    with LargestTensor() as seen:
        expert(h, gamma).sum().backward()
    assert seen.numel <= 2_000 * 32


def test_dropout_is_the_same_when_a_block_is_computed_again():
    torch.manual_seed(0)
    expert = GeneExpert(6, 5, (8, 4), dropout=0.5, chunk=7).double()
    h, gamma = torch.randn(4, 6).double().requires_grad_(), torch.randn(7, 5).double()

    def value(h):
        torch.manual_seed(3)
        return expert(h, gamma)

    assert torch.autograd.gradcheck(value, (h,))
