"""A row an edge type with the model's scores and the best baseline's."""

from __future__ import annotations

import numpy as np
import pandas as pd

from torchcell.knowledge_graph.report import COLUMNS, relation_sections, relation_table


def scores(**values: dict[str, float]) -> pd.DataFrame:
    rows = [(system, metric, value) for system, of in values.items() for metric, value in of.items()]
    return pd.DataFrame(rows, columns=["system", "metric", "value"])


TABLE = scores(
    Model={"CtD_matched/auroc": 0.9, "CbG_matched/auroc": 0.7, "CtD_tail/mrr": 0.5, "CbG_tail/mrr": np.nan},
    paths={"CtD_matched/auroc": 0.8, "CbG_matched/auroc": 0.6, "CtD_tail/mrr": 0.25, "CbG_tail/mrr": 0.25},
    degrees={"CtD_matched/auroc": 0.4, "CbG_matched/auroc": 0.8, "CtD_tail/mrr": np.nan, "CbG_tail/mrr": 0.125},
)


def test_each_edge_type_has_a_row_with_the_best_baseline_and_the_mean_is_that_of_one_baseline():
    table = relation_table(TABLE, "Model", ["CtD", "CbG"]).set_index("relation")
    assert table.columns.tolist() == list(COLUMNS)
    assert table["AUROC, matched"].tolist() == ["0.900 (0.800)", "0.700 (0.800)", "0.800 (0.700)"]
    assert table["MRR of the target"].tolist() == ["0.500 (0.250)", "– (0.250)", "– (0.250)"]  # undefined is not 0
    assert set(table["Hits@10 of the source"]) == {"–"}


def test_one_edge_type_needs_no_table_of_them_and_other_data_have_none():
    assert relation_sections(TABLE, "Model", ["CtD"]) == relation_sections(TABLE, "Model", ()) == []
    assert len(relation_sections(TABLE, "Model", ["CtD", "CbG"])) == 1
