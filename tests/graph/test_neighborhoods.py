"""Neighborhoods of genes: each network weighs the same, annotations count where the graph has them."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from torchcell.graph.cell_graph import CellGraph, annotation_table, has_annotations
from torchcell.graph.neighborhood import ANNOTATION_WEIGHT, cosine_neighbors, neighborhoods

GENES = list("abcdef")


def cell(annotated: bool) -> CellGraph:
    """An undirected path a-b-c, a directed edge a to d; terms s of a and f, t of a, b; e has nothing at all."""
    path, into = np.zeros((6, 6)), np.zeros((6, 6))
    path[0, 1] = path[1, 0] = path[1, 2] = path[2, 1] = 1
    into[3, 0] = 1
    matrices, nodes, ends = {"path": path, "into": into}, {}, {}
    if annotated:
        matrices["annotated"] = np.array([[1.0, 0, 0, 0, 0, 1], [1, 1, 0, 0, 0, 0]])
        nodes, ends = {"term": ["s", "t"]}, {"annotated": ("gene", "term")}
    csr = {name: sp.csr_matrix(matrix) for name, matrix in matrices.items()}
    return CellGraph(GENES, csr, set(csr) - {"path"}, nodes=nodes, ends=ends)


def test_annotations_are_one_more_block_of_their_own_weight():
    with_terms, without = cell(True), cell(False)
    assert has_annotations(with_terms)
    assert not has_annotations(without)
    rows, plain = neighborhoods(with_terms, GENES).toarray(), neighborhoods(without, GENES).toarray()
    assert plain.shape == (6, 3 * 6)  # the path, and both directions of the directed relation
    np.testing.assert_array_equal(rows[:, :18], plain)
    np.testing.assert_allclose(rows[:, 18:], ANNOTATION_WEIGHT * annotation_table(with_terms).toarray(), rtol=1e-6)
    length = np.linalg.norm(rows[:, 18:], axis=1)
    np.testing.assert_allclose(length, ANNOTATION_WEIGHT * np.array([1, 1, 0, 0, 0, 1]), rtol=1e-6)


def test_each_relation_and_direction_has_length_one():
    parts = neighborhoods(cell(False), GENES).toarray().reshape(6, 3, 6)
    np.testing.assert_allclose(np.linalg.norm(parts, axis=2), 1, rtol=1e-6)


def test_rows_come_in_the_order_asked_for_and_a_stranger_is_empty():
    whole, asked = neighborhoods(cell(True), GENES).toarray(), neighborhoods(cell(True), ["f", "stranger", "a"])
    np.testing.assert_array_equal(asked.toarray(), np.stack([whole[5], np.zeros_like(whole[0]), whole[0]]))


def test_a_shared_term_brings_genes_together_that_no_network_joins():
    near = cosine_neighbors(neighborhoods(cell(False), GENES), 5)
    nearer = cosine_neighbors(neighborhoods(cell(True), GENES), 5)
    assert near[5, 0] == 0
    assert nearer[5, 0] > 0.1
    assert nearer[4].nnz == 0


def test_cosines_are_those_of_a_dense_loop_and_only_the_largest_stay():
    rng = np.random.default_rng(0)
    feature = sp.random(30, 12, density=0.4, random_state=1, format="csr", dtype=np.float32)
    feature.data = rng.normal(size=feature.nnz).astype(np.float32)
    dense = feature.toarray()
    length = np.linalg.norm(dense, axis=1)
    found = cosine_neighbors(feature, 4, damping=0.1).toarray()
    for i in range(30):
        cosine = dense @ dense[i] / ((length + 0.1) * (length[i] + 0.1))
        cosine[i] = 0
        cosine[np.argsort(-np.abs(cosine))[4:]] = 0
        np.testing.assert_allclose(found[i], cosine, atol=1e-6)
