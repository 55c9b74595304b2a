"""Metapath scores: damped paths against an enumeration, edges taken out, both ends, and what two node types must have."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from tests.knowledge_graph.random_typed import knowledge_graph
from torchcell.io.errors import InputError
from torchcell.knowledge_graph.models.hgt_embedder.metapaths import SMOOTHING, MetapathScores, metapaths_between
from torchcell.knowledge_graph.typed_graph import TypedGraph

GRAPH = TypedGraph.from_knowledge_graph(knowledge_graph(seed=3))
RELATIONS = [(relation.source, relation.target) for relation in GRAPH.relations]
NAMES = [relation.name for relation in GRAPH.relations]
SIZES = np.diff(GRAPH.bounds).tolist()


def scores_of(edge_type: str, back: str, **options) -> MetapathScores:
    torch.manual_seed(0)
    scores = MetapathScores(
        RELATIONS, SIZES, (NAMES.index(edge_type), NAMES.index(back)), GRAPH.csrs(), hidden=5, **options
    )
    for linear in scores.straight:
        torch.nn.init.normal_(linear.weight)
    return scores


def dense(csrs) -> list[np.ndarray]:
    """Each relation damped, [nodes it starts from, nodes it ends in]."""
    out = []
    for csr, (source, target) in zip(csrs, RELATIONS, strict=True):
        matrix = np.zeros((SIZES[target], SIZES[source]))
        rows = np.repeat(np.arange(SIZES[target]), np.diff(csr.indptr))
        np.add.at(matrix, (rows, csr.indices.numpy()), csr.weight.numpy())
        degrees = np.maximum(matrix.sum(1), 1)[:, None] * np.maximum(matrix.sum(0), 1)[None]
        out.append((matrix / np.sqrt(degrees)).T)
    return out


@pytest.mark.parametrize(("edge_type", "back"), [("CtD", "CtD<"), ("CrC", "CrC"), ("DaG", "DaG<")])
def test_path_sums_equal_products_of_damped_matrices_whatever_end_they_start_from(edge_type, back):
    scores, matrices = scores_of(edge_type, back), dense(GRAPH.csrs())
    own = NAMES.index(back if scores.turned else edge_type)
    start, end = scores.ends[::-1] if scores.turned else scores.ends
    expected = {}
    for n_steps in (1, 2, 3):
        for path in itertools.product(range(len(RELATIONS)), repeat=n_steps):
            joined = all(RELATIONS[a][1] == RELATIONS[b][0] for a, b in itertools.pairwise(path))
            if joined and RELATIONS[path[0]][0] == start and RELATIONS[path[-1]][1] == end and path != (own,):
                product = np.linalg.multi_dot([matrices[r] for r in path]) if n_steps > 1 else matrices[path[0]]
                expected[path] = product.T if scores.turned else product
    assert scores.paths == sorted(expected)
    found = scores.path_sums(GRAPH.csrs()).numpy()
    np.testing.assert_allclose(found, np.stack([expected[path] for path in scores.paths], axis=-1), atol=1e-5)


def test_an_edge_that_is_taken_out_is_on_no_path_and_counts_in_no_degree():
    scores, code = scores_of("CtD", "CtD<"), GRAPH.edge_types.index("CtD")
    gone = torch.arange(0, GRAPH.n_edges("CtD"), 2)
    edges = {name: tuple(end.numpy() for end in GRAPH.edges(name)) for name in GRAPH.edge_types}
    edges["CtD"] = tuple(end[1::2] for end in edges["CtD"])
    rest = TypedGraph(
        GRAPH.node_id,
        GRAPH.node_name,
        GRAPH.node_types,
        GRAPH.bounds,
        GRAPH.ends,
        edges,
        GRAPH.symmetric,
        GRAPH.from_record,
    )
    without = GRAPH.csrs(GRAPH.weights_without(torch.full_like(gone, code), gone))
    torch.testing.assert_close(scores(without), scores(rest.csrs()))
    assert not torch.allclose(scores(without), scores(GRAPH.csrs()))
    degree = GRAPH.degree("CtD")[0][GRAPH.bounds[0] : GRAPH.bounds[1]]
    column = scores.reads[0].index(NAMES.index("CtD<"))
    torch.testing.assert_close(scores.degrees(GRAPH.csrs())[0][:, column], (degree + SMOOTHING).log())


def test_scores_are_the_formula_and_of_an_edge_type_without_direction_the_same_both_ways():
    scores, csrs = scores_of("CtD", "CtD<"), GRAPH.csrs()
    inputs = [(scores.path_sums(csrs) / scores.unit).log1p(), *scores.degrees(csrs)]
    inputs = [(x - x.flatten(0, -2).mean(0)) / x.flatten(0, -2).std(0, correction=0).clamp(min=1e-6) for x in inputs]
    pair = torch.cat([inputs[0][2, 1], inputs[1][2], inputs[2][1]])
    weight, straight = (torch.cat([linear.weight for linear in maps], dim=1) for maps in (scores.maps, scores.straight))
    hidden = torch.nn.functional.gelu(weight @ pair + scores.maps[0].bias)
    torch.testing.assert_close(scores(csrs)[2, 1], 8 * (scores.read(hidden) + straight @ pair)[0])
    both = scores_of("CrC", "CrC")(csrs)
    torch.testing.assert_close(both, both.T)


def test_metapaths_stand_with_their_beginnings():
    assert metapaths_between([(0, 1), (1, 0), (1, 1)], 0, 1, 3) == [(0,), (0, 1, 0), (0, 2), (0, 2, 2)]


def test_types_that_no_metapath_joins_are_refused():
    csrs = [GRAPH.csr(NAMES.index("CtD")), GRAPH.csr(NAMES.index("CtD<"))]
    ends = [RELATIONS[NAMES.index(name)] for name in ("CtD", "CtD<")]
    with pytest.raises(InputError, match=r"no metapath of at most 2 steps.*model.decoder.metapath_pairs=0"):
        MetapathScores(ends, SIZES, (0, 1), csrs, longest=2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_does_not_round_log_odds(dtype):
    model, csrs = scores_of("CtD", "CtD<"), GRAPH.csrs()
    with torch.autocast("cpu", dtype):
        found = model(csrs)
    assert torch.equal(found, model(csrs))
