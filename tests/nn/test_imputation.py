"""Untrained genes take the mean of their nearest trained ones; nobody else changes."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.neighborhood import neighborhoods
from torchcell.nn.gene_embedding import Imputation


def cliques() -> CellGraph:
    """Two cliques of four genes, a gene alone, and a reaction."""
    matrix = np.zeros((9, 9))
    matrix[:4, :4] = matrix[4:8, 4:8] = 1
    np.fill_diagonal(matrix, 0)
    return CellGraph(
        [f"g{i}" for i in range(9)],
        {"r": sp.csr_matrix(matrix), "catalyses": sp.csr_matrix(np.ones((1, 9)))},
        directed=["catalyses"],
        nodes={"reaction": ["x"]},
        ends={"catalyses": ("gene", "reaction")},
    )


def test_an_untrained_gene_takes_the_mean_of_its_clique_and_all_others_keep_theirs():
    x = torch.randn(10, 3)
    out = Imputation(cliques(), torch.tensor([1, 2, 3, 4, 5, 6]), k=50)(x)
    torch.testing.assert_close(out[0], x[1:4].mean(0))
    torch.testing.assert_close(out[7], x[4:7].mean(0))
    torch.testing.assert_close(out[1:7], x[1:7])
    torch.testing.assert_close(out[8:], x[8:])  # no neighbors; and no gene at all


def test_only_the_nearest_count():
    matrix = np.zeros((4, 4))
    matrix[0, [1, 2]] = matrix[1, [0, 2]] = matrix[2, [0, 1]] = 1  # a triangle
    matrix[0, 3] = matrix[3, 0] = 1  # and a gene that shares less with gene 0
    graph = CellGraph(list("abcd"), {"r": sp.csr_matrix(matrix)})
    x = torch.randn(4, 2)
    out = Imputation(graph, torch.tensor([1, 3]), k=1)(x)
    torch.testing.assert_close(out[0], x[1])


def test_with_all_genes_trained_nothing_changes_and_gradients_reach_the_lenders():
    graph, x = cliques(), torch.randn(10, 3, requires_grad=True)
    torch.testing.assert_close(Imputation(graph, torch.arange(9))(x), x)
    Imputation(graph, torch.tensor([1, 2]))(x)[0].sum().backward()
    torch.testing.assert_close(x.grad[1:3], torch.full((2, 3), 0.5))
    assert (x.grad[0] == 0).all()


def random_cell(annotated: bool, seed: int = 0) -> CellGraph:
    """Twenty genes, two networks, gene 19 in neither; with four terms if wanted."""
    rng = np.random.default_rng(seed)
    one, other = rng.random((2, 20, 20)) < 0.1
    one[19] = one[:, 19] = other[19] = other[:, 19] = False
    matrices, nodes, ends = {"one": one | one.T, "other": other}, {}, {}
    if annotated:
        matrices["annotated"] = rng.random((4, 20)) < 0.3
        nodes, ends = {"term": list("stuv")}, {"annotated": ("gene", "term")}
    csr = {name: sp.csr_matrix(matrix.astype(float)) for name, matrix in matrices.items()}
    return CellGraph([f"g{i:02d}" for i in range(20)], csr, set(csr) - {"one"}, nodes=nodes, ends=ends)


def by_loop(feature: np.ndarray, trained: list[int], gene: int, x: torch.Tensor, k: int, power: float) -> torch.Tensor:
    """What a cold gene takes, gene by gene."""
    cosine = {}
    for other in set(trained) - {gene}:
        length = np.linalg.norm(feature[gene]) * np.linalg.norm(feature[other])
        if length > 0 and feature[gene] @ feature[other] > 1e-9:
            cosine[other] = feature[gene] @ feature[other] / length
    nearest = sorted(cosine, key=lambda other: -cosine[other])[:k]
    if not nearest:
        return x[gene]
    weight = torch.tensor([float(cosine[other]) ** power for other in nearest])
    return (weight[:, None] * x[nearest]).sum(0) / weight.sum()


@pytest.mark.parametrize("annotated", [False, True])
def test_weights_are_powers_of_the_true_cosine_as_a_loop_finds_them(annotated):
    """With annotations rows differ in length, so that a product of rows is no cosine."""
    graph, trained = random_cell(annotated), [0, 2, 3, 5, 8, 9, 11, 12, 14, 15, 17]
    feature = neighborhoods(graph, graph.genes).toarray()
    assert (np.ptp(np.linalg.norm(feature, axis=1)) > 0.1) == annotated
    x = torch.randn(graph.n_nodes, 3)
    out = Imputation(graph, torch.tensor(trained), k=100, power=1.5)(x)
    for gene in range(20):
        expected = x[gene] if gene in trained else by_loop(feature, trained, gene, x, 100, 1.5)
        torch.testing.assert_close(out[gene], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out[20:], x[20:])


def test_a_gene_marked_cold_takes_from_the_others_never_from_itself():
    graph, trained, x = random_cell(True), list(range(0, 20, 2)), torch.randn(24, 3)
    feature = neighborhoods(graph, graph.genes).toarray()
    cold = Imputation(graph, torch.tensor(trained), k=100, power=2.0, everyone=True)
    plain = Imputation(graph, torch.tensor(trained), k=100, power=2.0)
    torch.testing.assert_close(cold(x), plain(x))
    as_cold = torch.zeros(20, dtype=torch.bool)
    as_cold[[1, 4, 6]] = True
    out = cold(x, as_cold)
    changed = [4, 6, *range(1, 20, 2)]
    for gene in range(20):
        expected = by_loop(feature, trained, gene, x, 100, 2.0) if gene in changed else x[gene]
        torch.testing.assert_close(out[gene], expected, rtol=1e-4, atol=1e-5)


def test_a_marked_gene_without_neighbors_keeps_its_own():
    x = torch.randn(10, 3)
    out = Imputation(cliques(), torch.arange(9), everyone=True)(x, torch.arange(9) == 8)
    torch.testing.assert_close(out, x)


def test_marks_need_neighbors_for_everyone():
    with pytest.raises(ValueError, match="everyone=True"):
        Imputation(cliques(), torch.arange(4))(torch.randn(10, 3), torch.zeros(9, dtype=torch.bool))


def test_added_genes_take_from_the_genes_of_like_features():
    """Genes 9 and 10 were added after the table; 8 is in no network either; features decide for these three alone."""
    graph, trained = cliques().with_genes(["new", "far"]), [0, 1, 2, 4, 5]
    rng = np.random.default_rng(1)
    features = rng.normal(size=(11, 4)).astype(np.float32) + 5  # cosines without centering would all be near 1
    features[9] = features[2] + 0.01
    x = torch.randn(9, 3)
    given = torch.from_numpy(features)
    out = Imputation(graph, torch.tensor(trained), k=2, features=given)(x)
    assert out.shape == (11, 3)
    padded, centered = torch.nn.functional.pad(x, (0, 0, 0, 2)), features - features.mean(0)
    for gene in (8, 9, 10):
        expected = by_loop(centered, trained, gene, padded, 2, 2.0)
        torch.testing.assert_close(out[gene], expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(out[9], padded[9])
    without = Imputation(graph, torch.tensor(trained), k=2)(x)
    torch.testing.assert_close(out[:8], without[:8])
    torch.testing.assert_close(without[8:], padded[8:])  # its own row, and zeros for what was added


def test_an_added_gene_takes_the_same_alone_and_in_a_crowd():
    """Once the features were centered on all genes, a file of 540 new ones moved what each of them borrowed by half."""
    rng, x = np.random.default_rng(3), torch.randn(9, 3)
    own, one, crowd = rng.normal(size=(9, 4)), rng.normal(size=(1, 4)), rng.normal(size=(40, 4)) + 8
    found = []
    for added in (one, np.concatenate([one, crowd])):
        graph = cliques().with_genes([f"n{i}" for i in range(len(added))])
        features = torch.from_numpy(np.concatenate([own, added]).astype(np.float32))
        found.append(Imputation(graph, torch.tensor([0, 1, 2, 4, 5]), k=2, features=features, n_own=9)(x)[9])
    torch.testing.assert_close(found[0], found[1])


def test_a_table_of_all_nodes_keeps_the_others_and_one_of_genes_has_none():
    cold, x = Imputation(cliques(), torch.tensor([1, 2, 5])), torch.randn(10, 3)
    torch.testing.assert_close(cold(x[:9]), cold(x)[:9])
    torch.testing.assert_close(cold(x)[9], x[9])
    with pytest.raises(ValueError, match="11 rows are neither of 9 genes nor of 10 nodes"):
        cold(torch.randn(11, 3))


def test_the_gradient_is_that_of_the_rows_that_were_taken():
    graph, trained = random_cell(True), torch.arange(0, 20, 2)
    cold = Imputation(graph, trained, k=3, everyone=True)
    as_cold, g = torch.rand(20) < 0.5, torch.randn(20, 3)
    weight = torch.stack([cold(row[:, None], as_cold)[:, 0] for row in torch.eye(20)], dim=1)  # the map, densely
    x = torch.randn(20, 3, requires_grad=True)
    cold(x, as_cold).backward(g)
    torch.testing.assert_close(cold(x, as_cold), weight @ x)
    torch.testing.assert_close(x.grad, weight.T @ g)
