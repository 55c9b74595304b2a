"""Mean over the training triples of the same query pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from torchcell.baselines.base import Baseline, measured, validation_score
from torchcell.data.screen import Screen
from torchcell.graph.cell_graph import CellGraph


class QueryPairMean(Baseline):
    """(sum of the query pair's training values + m * overall mean) / (their number + m).

    Only for sets of three and more genes two of which are the query pair. In a pair screen there is no
    such pair: a row that names two query genes was measured in both orientations. Its prediction is NaN,
    as it is where the column ``query`` is missing. A pair unseen in train gets the overall mean.

    Args:
        pseudo_counts: Values of m to choose from, in samples.
    """

    name = "query_pair_mean"

    def __init__(self, pseudo_counts: Sequence[float] = (0.1, 1.0, 3.0, 10.0)) -> None:
        self.pseudo_counts = tuple(pseudo_counts)

    def fit(self, train: Screen, val: Screen, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        keys = np.array(query_pairs(train))
        self.tables: list[dict[str, float]] = []
        self.means: list[float] = []
        for t in range(train.phenotype.shape[1]):
            held = measured(train, t) & (keys != "")
            table: dict[str, float] = {}
            mean = np.nan
            if held.any():
                values = train.phenotype[held, t].astype(np.float64)
                names, position, count = np.unique(keys[held], return_inverse=True, return_counts=True)
                mean = float(values.mean())
                total = np.bincount(position, weights=values)
                tables = [
                    dict(zip(names.tolist(), ((total + m * mean) / (count + m)).tolist(), strict=True))
                    for m in self.pseudo_counts
                ]
                scores = [
                    validation_score(val.phenotype[:, t], _look_up(query_pairs(val), one, mean), train.task)
                    for one in tables
                ]
                table = tables[int(np.argmax(scores))]
            self.tables.append(table)
            self.means.append(mean)
        return self

    def predict(self, record: Screen) -> np.ndarray:
        """See ``Baseline``."""
        keys = query_pairs(record)
        columns = [_look_up(keys, *fitted) for fitted in zip(self.tables, self.means, strict=True)]
        return np.stack(columns, axis=1).astype(np.float32)


def query_pairs(record: Screen) -> list[str]:
    """Sorted names of the two query genes of each sample joined by ``|``; empty where there is no such pair."""
    if "query" not in record.columns:
        return [""] * len(record)
    queries = [sorted(cell.split("|")) for cell in record.columns["query"].astype(str).tolist()]
    large = (record.sizes > 2).tolist()
    return ["|".join(pair) if len(pair) == 2 and many else "" for pair, many in zip(queries, large, strict=True)]


def _look_up(keys: list[str], table: dict[str, float], mean: float) -> np.ndarray:
    return np.array([table.get(key, mean) if key else np.nan for key in keys])
