"""One row a metaedge: how well its held-out links are told from non-links and ranked, and the best baseline there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from torchcell.report.sections import Section

TITLE = "Each relation"
COLUMNS = {
    "AUROC, matched": "matched/auroc",
    "AUPRC, matched": "matched/auprc",
    "AUROC, uniform": "uniform/auroc",
    "AUPRC, uniform": "uniform/auprc",
    "MRR of the target": "tail/mrr",
    "Hits@10 of the target": "tail/hits@10",
    "MRR of the source": "head/mrr",
    "Hits@10 of the source": "head/hits@10",
}
"""Heading -> what follows the metaedge's name in ``metrics.csv``."""


def relation_table(table: pd.DataFrame, model: str, metaedges: Sequence[str]) -> pd.DataFrame:
    """The model's scores, a row a metaedge, then their mean; in brackets the best baseline's.

    Args:
        table: Long, with ``system, metric, value``, as in ``metrics.csv``.
        model: The system under test; all others are baselines.
        metaedges: The supervised ones.

    Returns:
        ``relation`` and the ``COLUMNS``, as text; an undefined score is a dash.
    """
    value = table.pivot_table(index="metric", columns="system", values="value", aggfunc="first", dropna=False)
    wanted = [f"{metaedge}_{ending}" for metaedge in metaedges for ending in COLUMNS.values()]
    value = value.reindex(wanted)
    shape = len(metaedges), len(COLUMNS)
    own = (value[model] if model in value else pd.Series(np.nan, wanted)).to_numpy(dtype=float).reshape(shape)
    others = value.drop(columns=model, errors="ignore").astype(float)
    best = others.max(axis=1).to_numpy(dtype=float).reshape(shape)
    rows = [[_cell(a, b) for a, b in zip(*pair, strict=True)] for pair in zip(own, best, strict=True)]
    # The mean of a baseline is that of one system, not of the best of each row.
    means = others.to_numpy(dtype=float).reshape(*shape, -1).mean(axis=0)
    top = [_best(row) for row in means]
    rows.append([_cell(a, b) for a, b in zip(own.mean(axis=0), top, strict=True)])
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    found.insert(0, "relation", [*metaedges, "mean"])
    return found


def relation_sections(table: pd.DataFrame, model: str, metaedges: Sequence[str]) -> list[Section]:
    """The table on the page; nothing where fewer than two metaedges are supervised."""
    if len(metaedges) < 2:
        return []
    text = (
        f"{model}, and in brackets the best baseline of that cell (in the last row the best mean of one baseline). "
        "Ranks are filtered. Intervals are in metrics.csv and in the tables of the outputs; no difference is shown to "
        "be real by this table alone."
    )
    return [Section(TITLE, text, table=relation_table(table, model, metaedges))]


def _best(values: np.ndarray) -> float:
    return float(np.nanmax(values)) if np.isfinite(values).any() else np.nan


def _cell(own: float, best: float) -> str:
    said = "–" if np.isnan(own) else f"{own:.3f}"
    return said if np.isnan(best) else f"{said} ({best:.3f})"
