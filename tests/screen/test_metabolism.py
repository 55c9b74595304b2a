"""yeast-GEM and GO as the files say, and roles of reversible reactions."""

from __future__ import annotations

import numpy as np
import pytest

from torchcell.graph.cell_graph import CellGraph
from torchcell.screen import yeast_cell as metabolism
from torchcell.screen.yeast_cell import yeast_cell_networks, yeast_gene_ontology, yeast_genes


def test_roles_follow_the_bounds(monkeypatch):
    def reaction(name: str, lower: float, upper: float) -> dict:
        return {"id": name, "lower_bound": lower, "upper_bound": upper, "metabolites": {"a": -1.0, "b": 2.0}}

    monkeypatch.setattr(metabolism, "reactions", lambda: [
        reaction("forward", 0, 1000), reaction("backward", -1000, 0), reaction("both", -1000, 1000)
    ])  # fmt: skip
    made = metabolism._stoichiometry("produces")
    used = metabolism._stoichiometry("consumed_by")
    assert set(zip(made.source, made.target, made.weight, strict=True)) == {
        ("forward", "b", 2), ("backward", "a", 1), ("both", "a", 1), ("both", "b", 2)
    }  # fmt: skip
    assert set(zip(used.source, used.target, used.weight, strict=True)) == {
        ("a", "forward", 1), ("b", "backward", 2), ("a", "both", 1), ("b", "both", 2)
    }  # fmt: skip
    assert (made.source_type, made.target_type) == ("reaction", "metabolite")
    assert (used.source_type, used.target_type) == ("metabolite", "reaction")


@pytest.mark.mirror
def test_counts_of_the_model(mirror):
    reactions = metabolism.reactions()
    assert len(reactions) == 4_131
    assert sum(r["lower_bound"] < 0 < r["upper_bound"] for r in reactions) == 1_668
    rules = metabolism.yeast_gene_rules()
    assert len(rules.target) == 2_709
    assert len(rules.owner) == 3_703
    assert np.bincount(rules.owner).max() == 20
    assert len(np.unique(rules.gene)) == 1_153
    edges = {network.name: len(network.source) for network in metabolism.yeast_metabolism()}
    assert edges == {
        "catalyses": 4_095, "produces": 10_688, "consumed_by": 10_057, "catalysed_by": 4_095, "produced_by": 10_688
    }  # fmt: skip


@pytest.mark.mirror
def test_a_gene_that_no_reaction_needs_catalyses_all_the_same(mirror):
    """Edges were made from the shortened rules, which left out 41 edges and 8 of the model's 1,161 genes."""
    catalyses = metabolism.yeast_metabolism()[0]
    assert len(np.unique(catalyses.source)) == 1_161
    assert "YBR128C" in catalyses.source
    assert "YBR128C" not in metabolism.yeast_gene_rules().gene


@pytest.mark.mirror
def test_counts_of_the_ontology(mirror):
    """The data README counts 66,512 pairs over 5,779 ORFs; resolving aliases and retrotransposons gives more (notes)."""
    annotated, hierarchy, back = yeast_gene_ontology()
    assert (len(annotated.source), len(np.unique(annotated.source))) == (66_813, 5_863)
    assert annotated.dropped == {"unknown symbols": 420, "annotations of genes without an ORF": 1_678}
    assert len(hierarchy.source) == 9_895
    assert (back.source_type, back.target_type, len(back.source)) == ("term", "gene", 66_813)


@pytest.mark.mirror
def test_the_whole_cell_joins_by_name(mirror):
    graph = CellGraph.from_networks(yeast_cell_networks(), yeast_genes(), rules=metabolism.yeast_gene_rules())
    assert graph.node_types == ("gene", "reaction", "metabolite")
    assert {kind: len(graph.names(kind)) for kind in graph.node_types} == {
        "gene": 6_775, "reaction": 4_131, "metabolite": 2_806
    }  # fmt: skip
    assert not [what for what in graph.dropped if "unknown" in what]
    assert CellGraph.from_plain(graph.to_plain()).hash == graph.hash
