"""A spec carries gene features through a checkpoint, and takes further genes that nothing was trained with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from torchcell.core.spec import Spec
from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.features import network_features
from torchcell.io.errors import InputError
from torchcell.io.gene_features import GeneFeatures
from torchcell.screen.datamodule import PerturbationDataModule

RANDOM = {"method": "random", "n_folds": 5, "fold": 0, "seed": 0}


def numbered(names: list[str]) -> GeneFeatures:
    """Two columns: a gene's place, and its negative."""
    place = np.arange(len(names), dtype=np.float32)
    return GeneFeatures(np.array(names), ("plus", "minus"), np.stack([place, -place], axis=1))


@pytest.fixture
def spec(pairs, ring) -> Spec:
    graph = CellGraph.from_networks(ring)
    return PerturbationDataModule(pairs, RANDOM, graph, features=numbered(graph.genes.tolist())).spec


def added(names: list[str], columns: tuple[str, ...] = ("plus", "minus"), **values: float) -> GeneFeatures:
    table = np.array([[values.get(column, 7.0) for column in columns]] * len(names), dtype=np.float32)
    return GeneFeatures(np.array(names), columns, table)


def test_features_follow_the_vocabulary_and_survive_a_checkpoint_file(pairs, ring, tmp_path):
    graph = CellGraph.from_networks(ring)
    shuffled = np.random.default_rng(0).permutation(graph.genes).tolist()
    spec = PerturbationDataModule(pairs, RANDOM, graph, features=numbered([*shuffled, "unused"])).spec
    torch.save(spec.to_plain(), tmp_path / "spec.pt")
    loaded = Spec.from_plain(torch.load(tmp_path / "spec.pt", weights_only=True))
    held = loaded.gene_features
    assert held is not None
    assert held.columns == ("plus", "minus")
    assert held.values.dtype == np.float32
    assert held.values[:, 0].tolist() == [shuffled.index(name) for name in spec.genes]
    assert loaded.n_trained_with == len(spec.genes)


def test_features_are_made_of_the_graph_or_refused_without_one(pairs, ring):
    graph = CellGraph.from_networks(ring)
    made = PerturbationDataModule(pairs, RANDOM, graph, features=lambda cell: network_features(cell, spectral=2)).spec
    assert made.gene_features is not None
    np.testing.assert_array_equal(made.gene_features.values, network_features(graph, spectral=2).values)
    with pytest.raises(InputError, match="data.features is made of a graph, and the data has none"):
        PerturbationDataModule(pairs, RANDOM, features=network_features)


def test_without_a_graph_features_follow_the_screens_genes(pairs):
    names = sorted(pairs.genes.tolist())
    module = PerturbationDataModule(pairs, RANDOM, features=numbered(names))
    assert module.spec.gene_features.values[:, 0].tolist() == [names.index(g) for g in module.spec.genes]
    with pytest.raises(InputError, match=f"1 of 80 genes have no features: '{names[-1]}'"):
        PerturbationDataModule(pairs, RANDOM, features=numbered(names[:-1]))


def test_no_feature_enters_a_batch(pairs, ring):
    graph = CellGraph.from_networks(ring)
    bare, fed = (
        PerturbationDataModule(pairs, RANDOM, graph, features=features).packed[torch.arange(64)].nbytes
        for features in (None, numbered(graph.genes.tolist()))
    )
    assert bare == fed


def test_added_genes_stand_after_the_known_ones_with_their_features(spec):
    more = spec.with_added(added(["N1", "N2"], ("minus", "plus"), plus=3.0, minus=4.0))
    assert more.genes == (*spec.genes, "N1", "N2")
    assert more.graph is not None
    assert more.graph.genes.tolist() == list(more.genes)
    values = more.gene_features.values
    np.testing.assert_array_equal(values[:-2], spec.gene_features.values)
    assert values[-2:].tolist() == [[3, 4], [3, 4]], "columns go by name, not by place"
    assert torch.equal(more.trained_genes, spec.trained_genes)
    assert more.n_trained_with == len(spec.genes)
    assert spec.n_added == 0, "the spec itself stays as it was"
    again = more.with_added(added(["N3"]))
    assert again.n_trained_with == len(spec.genes)
    assert Spec.from_plain(again.to_plain()).genes == (*more.genes, "N3")


def test_added_genes_need_no_graph(pairs):
    bare = PerturbationDataModule(pairs, RANDOM, features=numbered(pairs.genes.tolist())).spec
    assert bare.with_added(added(["N1"])).graph is None


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (added(["N1", "A01", "Q02"]), "already knows: 'A01', 'Q02'; leave them out"),
        (added(["N1", "N1"]), "genes twice: 'N1'"),
        (added(["N1"], ("plus",)), "wrong width: 1 columns where 2 are read; missing 'minus', too many none"),
        (added(["N1"], ("plus", "minus", "size")), "missing none, too many 'size'"),
        (added(["N1"], plus=np.nan), "1 gene.* without a finite number.*'N1', in the columns 'plus'"),
    ],
)
def test_added_genes_that_do_not_fit_are_named(spec, features, said):
    with pytest.raises(InputError, match=said):
        spec.with_added(features)


def test_a_spec_without_features_takes_no_genes(spec):
    bare = replace(spec, gene_features=None)
    with pytest.raises(InputError, match="uses no gene features.*train with data.features"):
        bare.with_added(added(["N1"]))


def test_features_of_another_number_of_genes_are_refused(spec):
    held = replace(spec.gene_features, values=np.zeros((3, 2), dtype=np.float32))
    with pytest.raises(InputError, match=r"gene features \(3, 2\) for 80 genes"):
        replace(spec, gene_features=held)
