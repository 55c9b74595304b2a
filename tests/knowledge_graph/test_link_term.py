"""The link term: both forms against loops, 2 ln 2 at constant scores, known links left out."""

from __future__ import annotations

import math

import pytest
import torch

from tests.knowledge_graph.test_link_negatives import sample_links
from torchcell.io.errors import InputError
from torchcell.knowledge_graph.models.hgt_embedder.losses import LinkTerm
from torchcell.knowledge_graph.models.hgt_embedder.model import DistMult


def parts(form: str, count: int = 6):
    torch.manual_seed(1)
    negatives, z_ND = sample_links(), torch.randn(20, 8, dtype=torch.float64)
    decoder = DistMult(8, 3, n_nodes=20, symmetric=[1]).double()
    torch.nn.init.normal_(decoder.node_bias)
    term = LinkTerm(negatives, count, form)
    draws = [term.draw(code, *negatives.ends(code, torch.arange(negatives.n_edges[code]))) for code in (0, 1)]
    return term, decoder, z_ND, draws


@pytest.mark.parametrize("form", ["bce", "softmax"])
def test_equals_a_loop_over_links_and_ends(form):
    term, decoder, z, draws = parts(form)
    edges = {(0, 0, 8), (0, 0, 9), (0, 0, 11), (0, 5, 8), (1, 1, 4), (1, 4, 1), (1, 2, 3), (1, 3, 2)}

    def score(code, i, j):
        one, i, j = torch.tensor([code]), torch.tensor([i]), torch.tensor([j])
        return decoder(z[i], z[j], one, i, j)[0]

    losses = []
    for draw in draws:
        for i, j in zip(draw.source.tolist(), draw.target.tolist(), strict=True):
            link = score(draw.code, i, j)
            tails = [(i, k) for k in draw.tails.tolist() if (draw.code, i, k) not in edges and k != i]
            heads = [(k, j) for k in draw.heads.tolist() if (draw.code, k, j) not in edges and k != j]
            for others in (tails, heads):
                other = torch.stack([score(draw.code, *pair) for pair in others])
                if form == "softmax":
                    losses.append(torch.cat([link[None], other]).logsumexp(0) - link)
                else:
                    softplus = torch.nn.functional.softplus
                    losses.append(softplus(-link) + softplus(other).mean())
    torch.testing.assert_close(term(z.__getitem__, decoder, draws), torch.stack(losses).mean())


def test_a_constant_score_of_zero_costs_two_ln_two():
    """The loss that stood there for 76 epochs elsewhere."""
    term, decoder, z, draws = parts("bce")
    for parameter in decoder.parameters():
        torch.nn.init.zeros_(parameter)
    assert math.isclose(term(z.__getitem__, decoder, draws).item(), 2 * math.log(2), rel_tol=1e-12)


def test_a_type_smaller_than_the_count_is_ranked_whole():
    _term, _, _, draws = parts("softmax", count=12)
    assert draws[0].heads.tolist() == list(range(8))
    assert draws[0].tails.tolist() == list(range(8, 20))
    assert set(draws[0].nodes.tolist()) == set(range(20))


def test_no_links_cost_nothing_and_an_unknown_form_is_refused():
    term, decoder, z, _ = parts("bce")
    none = torch.zeros(0, dtype=torch.int64)
    assert float(term(z.__getitem__, decoder, [term.draw(2, none, none)])) == 0
    with pytest.raises(InputError, match="'hinge'"):
        LinkTerm(term.negatives, 4, "hinge")
