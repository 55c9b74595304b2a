"""Attention over allowed pairs against a dense softmax with everything else masked out."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.screen.models.cell_graph_transformer.controls import HardMask

N, WIDTH = 9, 4


def graph() -> CellGraph:
    """An undirected and a directed network with weights, an isolated gene, an edge of a gene to itself."""
    rng = np.random.default_rng(0)
    matrices = {}
    for name in ("physical", "regulatory"):
        matrix = (rng.random((N, N)) < 0.25) * rng.uniform(0.1, 3, (N, N))
        matrix[4], matrix[:, 4] = 0, 0
        matrix[2, 2] = 0.5
        matrices[name] = sp.csr_matrix(matrix + matrix.T if name == "physical" else matrix)
    further = {"reaction": ["r"]}
    catalyses = sp.csr_matrix(np.eye(1, N))
    ends = {"catalyses": ("gene", "reaction")}
    genes = [f"g{i}" for i in range(N)]
    return CellGraph(genes, matrices | {"catalyses": catalyses}, ["regulatory", "catalyses"], None, further, ends)


def dense(relation: str, specials: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    allowed = torch.ones(specials + N, specials + N, dtype=torch.bool)
    allowed[specials:, specials:] = torch.from_numpy(graph().scipy(relation).toarray() != 0) | torch.eye(N).bool()
    return (q @ k.T / WIDTH**0.5).masked_fill(~allowed, -torch.inf).softmax(-1) @ v


def inputs(specials: int) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(specials + N, WIDTH, dtype=torch.float64, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("relation", ["physical", "regulatory"])
@pytest.mark.parametrize("specials", [0, 1, 3])
def test_equals_a_dense_masked_softmax_in_value_and_gradient(relation, specials):
    tensors = inputs(specials)
    ours = HardMask(graph(), relation, specials)(*tensors)
    wanted = dense(relation, specials, *tensors)
    torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-12)
    seed = torch.randn_like(wanted)
    mine, reference = (torch.autograd.grad((each * seed).sum(), tensors) for each in (ours, wanted))
    for a, b in zip(mine, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_gene_without_neighbors_and_special_tokens_sees_itself():
    tensors = inputs(0)
    out = HardMask(graph(), "physical", specials=0)(*tensors)
    torch.testing.assert_close(out[4], tensors[2][4])


def test_only_allowed_pairs_are_held_and_none_enters_the_state_dict():
    mask = HardMask(graph(), "regulatory", specials=2)
    edges = graph().scipy("regulatory")
    pairs = edges.nnz + N - int((edges.diagonal() != 0).sum()) + 2 * N + 2 * (N + 2)
    assert len(mask.get_buffer("indices")) == pairs
    assert mask.state_dict() == {}
    assert f"regulatory, specials=2, tokens=11, pairs={pairs}" in repr(mask)


def test_a_relation_that_is_unknown_or_reaches_reactions_is_refused():
    with pytest.raises(InputError, match="no relation 'physcal'.*physical"):
        HardMask(graph(), "physcal")
    with pytest.raises(InputError, match="catalyses joins genes to reactions"):
        HardMask(graph(), "catalyses")


def test_another_number_of_tokens_is_refused():
    with pytest.raises(InputError, match=r"for 10 tokens, 1 of them special, but 12 came.*with_genes"):
        HardMask(graph(), "physical")(*(torch.randn(12, WIDTH) for _ in range(3)))
