"""Routing and dispatch: equal to all experts on all samples, gradients for all, balance that means what it says."""

from __future__ import annotations

import pytest
import torch

from torchcell.drug_response.models.chemoe.model import GeneExpert, MixtureOfExperts, Router, Routing

CHOICES = ["top_k", "dense", "uniform", "hash"]


def mixture(choice="top_k", experts=4, top_k=2, **changes) -> MixtureOfExperts:
    torch.manual_seed(0)
    return MixtureOfExperts(
        Router(6, experts, top_k, choice, start_sd=None, **changes),
        [GeneExpert(6, 5, (8, 4)) for _ in range(experts)],
    ).double()


def inputs(n=16, genes=7):
    torch.manual_seed(1)
    return torch.randn(n, 6).double(), torch.randn(genes, 5).double(), torch.randint(1000, (n,))


def dense_form(moe: MixtureOfExperts, h, gamma, key):
    """All experts on all samples, and the first layer on a row for each pair of sample and gene."""
    weight, total = moe.router(h, key).weight_BE(), 0
    for number, f in enumerate(moe.experts):
        pair = torch.cat([h[:, None].expand(-1, len(gamma), -1), gamma.expand(len(h), -1, -1)], 2)
        x = f.first_norm(f.first(pair)).relu()
        total = total + weight[:, number, None] * f.last(f.second_norm(f.second(x)).relu()).squeeze(-1)
    return total


@pytest.mark.parametrize("choice", CHOICES)
def test_dispatch_equals_the_dense_form_with_its_gradients(choice):
    moe, (h, gamma, key) = mixture(choice), inputs()
    h.requires_grad_()
    found, expected = moe(h, gamma, key)[0], dense_form(moe, h, gamma, key)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    probe = torch.randn_like(found)
    wanted = [h, *moe.parameters()]
    ours = torch.autograd.grad((found * probe).sum(), wanted)
    theirs = torch.autograd.grad((expected * probe).sum(), wanted)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_an_expert_that_receives_nothing_changes_nothing_and_has_gradients_of_zero():
    moe, (h, gamma, key) = mixture(), inputs()
    with torch.no_grad():
        moe.router.gate[-1].bias[3] = -1e6
    found, routing = moe(h, gamma, key)
    assert not (routing.expert_BK == 3).any()
    torch.testing.assert_close(found, dense_form(moe, h, gamma, key), rtol=0, atol=1e-6)
    found.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in moe.experts[3].parameters())


def test_an_expert_that_was_never_chosen_still_has_a_gradient_from_the_balance():
    """On the sparse weights it would be exactly 0, and a dead expert stays dead."""
    moe, (h, gamma, _) = mixture(), inputs()
    with torch.no_grad():
        moe.router.gate[-1].bias[3] = -4.0
    routing = moe(h, gamma)[1]
    assert not (routing.expert_BK == 3).any()
    routing.balance().backward()
    assert moe.router.gate[-1].bias.grad[3] != 0


def test_balance_is_one_when_even_and_the_number_of_experts_when_one_takes_all():
    expert = torch.tensor([[0], [1], [2], [3]])
    even = Routing(expert, torch.ones(4, 1), torch.zeros(4, 4), 4)
    one = torch.full((4, 4), -50.0)
    one[:, 2] = 50.0
    alone = Routing(torch.full((4, 1), 2), torch.ones(4, 1), one, 4)
    assert even.balance() == pytest.approx(1.0)
    assert alone.balance() == pytest.approx(4.0)
    assert even.logit_size() == pytest.approx(torch.tensor(4.0).log().item() ** 2)


def test_weights_of_the_chosen_add_up_to_one_and_one_alone_keeps_its_probability():
    h, _, _ = inputs()
    weight = mixture(top_k=2).router(h).weight_BK
    torch.testing.assert_close(weight.sum(1), torch.ones(16).double())
    assert (mixture(top_k=1).router(h).weight_BK < 1).all()


def test_a_fresh_router_is_nearly_even():
    torch.manual_seed(0)
    routing = Router(6, 4, 2)(torch.randn(50, 6))
    torch.testing.assert_close(routing.logit_BE.softmax(1), torch.full((50, 4), 0.25), atol=0.05, rtol=0)


def test_the_router_is_exact_under_mixed_precision():
    router, h = Router(6, 4, 2), torch.randn(50, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert router(h).logit_BE.dtype == torch.float32


def test_the_bias_evens_loads_out_and_leaves_the_weights_alone():
    router = mixture(bias_rate=0.001).router.float()
    with torch.no_grad():
        router.gate[-1].bias[0] = 2.0
    h = torch.randn(400, 6)

    def load() -> torch.Tensor:
        return torch.bincount(router(h).expert_BK.flatten(), minlength=4) / 800

    before = load()
    for _ in range(700):
        router(h)
        router.even_out()
    router.eval()
    after = load()
    assert before.max() > 0.45
    assert after.max() < 0.3
    chosen = router(h)
    share = chosen.logit_BE.softmax(1).gather(1, chosen.expert_BK)
    torch.testing.assert_close(chosen.weight_BK, share / share.sum(1, keepdim=True))


def test_processes_keep_one_bias_that_of_their_batches_together():
    """Each moved its own, by its own batch; a checkpoint had the first one's, and the score was of a mixture."""
    whole, first, second = (mixture(bias_rate=0.1).router for _ in range(3))
    h = torch.randn(60, 6).double()
    h[:20] += 5 * h[0]  # the batches differ in what they ask for
    whole(h)
    whole.even_out()
    loads = [
        torch.bincount(one(rows).expert_BK.flatten(), minlength=4) for one, rows in ((first, h[:20]), (second, h[20:]))
    ]
    for one, load in zip((first, second), loads, strict=True):
        one.even_out(lambda counts, own=load: sum(loads) if torch.equal(counts, own) else None)
    assert whole.bias_E.abs().sum() > 0
    torch.testing.assert_close(first.bias_E, whole.bias_E)
    torch.testing.assert_close(second.bias_E, whole.bias_E)
    first.even_out()  # nothing was routed since
    torch.testing.assert_close(first.bias_E, whole.bias_E)


@pytest.mark.parametrize(("choice", "top_k"), [("topk", 2), ("top_k", 5), ("top_k", 0)])
def test_what_cannot_be_is_refused(choice, top_k):
    with pytest.raises(ValueError, match=r"none of|experts a sample"):
        Router(6, 4, top_k, choice)
