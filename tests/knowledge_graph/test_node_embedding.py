"""Nodes of a model under their names, their health, and the files they become."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from typed_toy import IDS, NAMES, Dots, toy_spec

from torchcell.io.errors import InputError
from torchcell.knowledge_graph.embed import embed_nodes, tabulated_skill, write_nodes
from torchcell.knowledge_graph.embedding_health import LinkSkill, TrainingBounds


def test_nodes_come_with_id_name_and_type_and_the_model_stays_as_it_was():
    model = Dots(toy_spec()).train()
    found = embed_nodes(model, "best.ckpt")
    assert model.training
    assert found.table.node_id.tolist() == IDS.tolist()
    assert found.table.node_name.tolist() == NAMES.tolist()
    assert found.table.node_type.tolist() == ["Compound"] * 4 + ["Disease"] * 5
    np.testing.assert_array_equal(found.table.values, model.vectors)
    assert [one.node_type for one in found.health] == ["Compound", "Disease"]


def test_energies_are_those_of_each_edge_type():
    vectors = torch.zeros(9, 3)
    vectors[:4, 0], vectors[4:, 1] = 1, 1  # compounds lie at right angles to diseases, diseases on each other
    found = embed_nodes(Dots(toy_spec(), vectors), "best.ckpt")
    assert found.energies == {"CtD": 1, "DrD": 0}
    assert found.collapsed


def test_an_embedding_that_is_not_finite_is_an_error_and_zeros_are_a_collapse():
    vectors = torch.randn(9, 3)
    vectors[6] = 0
    found = embed_nodes(Dots(toy_spec(), vectors), "best.ckpt")
    assert found.health[1].why.startswith("1 of 5 vectors are zero")
    vectors[7, 1] = torch.nan
    with pytest.raises(InputError, match=r"best.ckpt: 1 node\(s\) with NaN or an infinity.*: 'Disease::3'"):
        embed_nodes(Dots(toy_spec(), vectors), "best.ckpt")


def test_a_model_may_set_the_bounds_of_its_own_vectors():
    vectors = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)) + 2
    model = Dots(toy_spec(), vectors)
    assert embed_nodes(model, "best.ckpt").collapsed
    model.health = TrainingBounds(cosine=1.0, components=0.0, rank=0.0)
    found = embed_nodes(model, "best.ckpt")
    assert not found.collapsed
    assert found.guard()["types"]["Compound"]["bounds"] == {"cosine": 1.0, "components": 0.0, "rank": 0.0}


def test_skill_is_read_from_a_table_where_both_scores_are_there():
    model = Dots(toy_spec(("CtD", "DrD")))
    rows = [
        ("Dots", "CtD_matched/auroc", 0.8), ("degree_product", "CtD_matched/auroc", 0.6),
        ("Dots", "DrD_matched/auroc", 0.7), ("Dots", "CtD_uniform/auroc", 0.9),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["system", "metric", "value"])
    assert tabulated_skill(table, model) == [LinkSkill("CtD", ("Compound", "Disease"), 0.8, 0.6)]


@pytest.mark.parametrize("ending", [".h5ad", ".parquet", ".csv"])
def test_the_table_stands_beside_the_page_of_its_health(tmp_path, ending):
    found = embed_nodes(Dots(toy_spec()), "best.ckpt")
    files = write_nodes(found, tmp_path / f"e{ending}", {"checkpoint": "best.ckpt"})
    assert [path.name for path in files] == [f"e{ending}", "e.html", "e_cosines.png", "e_pca.png"]
    assert all(path.stat().st_size > 0 for path in files)
    assert "best.ckpt" in files[1].read_text()
    if ending == ".h5ad":
        held = anndata.read_h5ad(files[0])
        assert held.uns["checkpoint"] == "best.ckpt"
        assert held.uns["health"].loc["Disease", "nodes"] == "5"
