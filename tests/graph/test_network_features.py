"""Features of the wild-type cell: named, on one scale, and alike for genes that are alike."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from torchcell.graph.cell_graph import CellGraph, annotation_table
from torchcell.graph.features import joined_features, network_features, spectral_features, table_features
from torchcell.io.errors import InputError
from torchcell.io.gene_features import GeneFeatures

GENES = [f"g{i}" for i in range(12)]


def graph(ontology: bool = True, hierarchy: bool = True) -> CellGraph:
    """Two cliques of six genes, a directed star; terms t0 and t1 below t2, which is below the root t3."""
    star = np.zeros((12, 12))
    star[1:, 0] = 1
    matrices = {"cliques": np.kron(np.eye(2), np.ones((6, 6))) - np.eye(12), "star": star}
    ends = {}
    if ontology:
        annotated = np.zeros((4, 12))  # g11 has no annotation, g10 only the root
        annotated[0, :3] = annotated[1, 3:6] = annotated[2, 6:10] = annotated[3, 10] = 1
        matrices["annotated"], ends["annotated"] = annotated, ("gene", "term")
        if hierarchy:
            above = np.zeros((4, 4))
            above[2, [0, 1]] = above[3, 2] = 1
            matrices["is_a"], ends["is_a"] = above, ("term", "term")
    csr = {name: sp.csr_matrix(matrix) for name, matrix in matrices.items()}
    nodes = {"term": [f"t{i}" for i in range(4)]} if ontology else {}
    return CellGraph(GENES, csr, set(csr) - {"cliques"}, nodes=nodes, ends=ends)


def test_columns_are_named_by_relation_direction_and_rank():
    features = network_features(graph(), spectral=2, terms=3)
    expected = [f"{block} {part}" for block in ("cliques", "star", "star reversed") for part in (1, 2, "log degree")]
    assert features.columns == (*expected, "annotated 1", "annotated 2", "annotated 3")
    assert features.genes.tolist() == GENES
    assert features.values.dtype == np.float32
    np.testing.assert_array_equal(features.values[:, :9], spectral_features(graph(), ["cliques", "star"], 2)[:12])


def test_names_stand_over_their_own_numbers_whatever_the_order_asked_for():
    """Relations come in the graph's order, also when the config lists them in another."""
    some = network_features(graph(), spectral=2, terms=0, relations=["star", "cliques"])
    alone = network_features(graph(), spectral=2, terms=0, relations=["star"])
    for name, values in zip(alone.columns, alone.values.T, strict=True):
        np.testing.assert_array_equal(some.values[:, some.columns.index(name)], values)


def test_a_graph_without_annotations_gives_its_networks_only():
    features = network_features(graph(ontology=False), spectral=2)
    assert not any(column.startswith("annotated") for column in features.columns)


def test_no_more_vectors_are_named_than_there_are():
    features = network_features(graph(), spectral=50, terms=50)
    assert features.values.shape[1] == len(features.columns) == 3 * (11 + 1) + 4


def test_blocks_are_centered_and_of_unit_size():
    values = network_features(graph(), spectral=2, terms=2).values.astype(np.float64)
    np.testing.assert_allclose(values.mean(0), 0, atol=1e-3)
    for block in (values[:, :2], values[:, 5:6], values[:, 9:]):
        np.testing.assert_allclose(np.sqrt((block**2).mean()), 1, rtol=1e-5)


def test_annotations_are_propagated_to_the_terms_above_and_weighed_by_their_rarity():
    table = annotation_table(graph()).toarray()
    # 11 genes have any term: t0 3, t1 3, t2 10 with those below it, t3 all 11, which says nothing.
    raw = np.zeros((12, 4))
    raw[:3, 0] = raw[3:6, 1] = np.log(11 / 3)
    raw[:10, 2] = np.log(11 / 10)
    length = np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(table, np.divide(raw, length, out=raw, where=length > 0), rtol=1e-6)


def test_without_a_hierarchy_annotations_stand_as_they_are():
    assert annotation_table(graph(hierarchy=False)).getnnz() == 3 + 3 + 4 + 1


def test_a_cycle_of_terms_ends():
    one = sp.csr_matrix(np.array([[0.0, 1], [1, 0]]))
    cell = CellGraph(
        ["a", "b"], {"annotated": sp.csr_matrix(np.eye(2)[:, :1] @ np.ones((1, 2))), "is_a": one},
        ["annotated", "is_a"], nodes={"term": ["s", "t"]}, ends={"annotated": ("gene", "term"), "is_a": ("term", "term")},
    )  # fmt: skip
    assert annotation_table(cell).shape == (2, 2)


def test_genes_of_like_annotation_are_alike():
    values = network_features(graph(), spectral=1, terms=3).values[:, -3:]
    np.testing.assert_allclose(values[0], values[2], atol=1e-5)
    assert np.abs(values[0] - values[3]).max() > 0.5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"spectral": 0}, "spectral=0 must be 1 or more"),
        ({"terms": -1}, "terms=-1 0 or more"),
        ({"relations": ["clique"]}, "no relation 'clique'.*cliques"),
        ({"relations": ["annotated"], "terms": 0}, "neither a relation among genes nor annotations"),
    ],
)
def test_what_gives_no_feature_is_refused(options, said):
    with pytest.raises(InputError, match=said):
        network_features(graph(), **options)


def test_a_table_is_put_in_the_graphs_order_and_joined_with_others(tmp_path):
    path = tmp_path / "size.csv"
    path.write_text("gene,size\n" + "".join(f"{name},{i}\n" for i, name in enumerate(reversed([*GENES, "extra"]))))
    sized = table_features(graph(), str(path))
    assert sized.genes.tolist() == GENES
    assert sized.values[:, 0].tolist() == list(range(12, 0, -1))

    def shuffled(cell: CellGraph) -> GeneFeatures:
        return GeneFeatures(cell.genes[::-1], ("rank",), np.arange(12, dtype=np.float32)[:, None])

    parts = {"sizes": lambda cell: table_features(cell, str(path)), "ranks": shuffled}
    joined = joined_features(graph(), parts)
    assert joined.columns == ("size", "rank")
    assert joined.values[0].tolist() == [12, 11]
    with pytest.raises(InputError, match="columns twice: 'size'"):
        joined_features(graph(), parts | {"again": parts["sizes"]})
