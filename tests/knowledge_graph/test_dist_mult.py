"""DistMult: the formula, direction, biases, and the grid against single links."""

from __future__ import annotations

import pytest
import torch

from torchcell.io.errors import InputError
from torchcell.knowledge_graph.models.hgt_embedder.model import DistMult


def links(n=40, nodes=9, edge_types=3, features=8):
    z_ND = torch.randn(nodes, features, dtype=torch.float64)
    source, target = torch.randint(nodes, (2, n))
    return z_ND, torch.randint(edge_types, (n,)), source, target


def drawn(*args, **kwargs) -> DistMult:
    decoder = DistMult(*args, **kwargs).double()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter)
    return decoder


def test_is_the_formula_of_the_docstring():
    z, code, source, target = links()
    decoder = drawn(8, 3, n_nodes=9, directed=[1], symmetric=[2])
    score = decoder(z[source], z[target], code, source, target)
    for p, (m, i, j) in enumerate(zip(code.tolist(), source.tolist(), target.tolist(), strict=True)):
        expected = (decoder.weight[m] * z[i] * z[j]).sum() / 8**0.5 + decoder.bias[m]
        expected = expected + decoder.node_bias[0, m, i] + decoder.node_bias[0 if m == 2 else 1, m, j]
        if m == 1:
            turned = z[i, :4] * z[j, 4:] - z[i, 4:] * z[j, :4]
            expected = expected + (decoder.turn[0] * turned).sum() / 8**0.5
        torch.testing.assert_close(score[p], expected)


def test_only_directed_edge_types_tell_the_two_directions_apart():
    z, _, source, target = links()
    decoder = drawn(8, 3, n_nodes=9, directed=[1], symmetric=[2])
    forth, back = (
        {m: decoder(z[a], z[b], torch.full_like(a, m), a, b) for m in (1, 2)}
        for a, b in ((source, target), (target, source))
    )
    torch.testing.assert_close(forth[2], back[2])
    assert not torch.isclose(forth[1], back[1])[source != target].any()


@pytest.mark.parametrize("n_nodes", [0, 9])
def test_the_grid_is_each_pair_scored_alone(n_nodes):
    z, _, source, target = links(n=5)
    decoder = drawn(8, 3, n_nodes=n_nodes, directed=[1])
    for m in range(3):
        grid = decoder.grid(z[source], z[target], m, source, target)
        i, j = (each.flatten() for each in torch.meshgrid(source, target, indexing="ij"))
        torch.testing.assert_close(grid.flatten(), decoder(z[i], z[j], torch.full_like(i, m), i, j))


def test_fresh_biases_are_zero_and_every_parameter_learns():
    z, code, source, target = links()
    decoder = DistMult(8, 3, n_nodes=9, directed=[1]).double()
    assert not decoder.bias.any()
    assert not decoder.node_bias.any()
    decoder(z[source], z[target], code, source, target).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in decoder.parameters())


def test_an_odd_width_cannot_be_turned():
    with pytest.raises(InputError, match="even"):
        DistMult(7, 3, directed=[0])
    assert DistMult(7, 3).turn is None
