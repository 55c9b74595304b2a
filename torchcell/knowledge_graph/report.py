"""The report's part on embeddings and on each edge type."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from torchcell.knowledge_graph.embedding_health import LEVELS, TRAINING, TypeHealth
from torchcell.report.layout import number
from torchcell.report.maps import pca_map, principal_components
from torchcell.report.sections import Section
from torchcell.report.table import LOG_WIDTH

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PAIRS = 20_000
"""Pairs of nodes drawn at random for a histogram."""
POINTS = 2_000
"""Nodes of a type drawn on its map."""
COLORS = {"healthy": "green", "narrow": "yellow", "collapsed": "red", "undefined": "yellow"}
TONES = {"healthy": "good", "collapsed": "bad"}


def health_table(found: Sequence[TypeHealth]) -> pd.DataFrame:
    """The collapse table, a row a node type."""
    rows = []
    for one in found:
        row = {
            "type": one.node_type,
            "nodes": f"{one.n:,}",
            "mean cosine": _said(one.cosine),
            "after centering": _said(one.centered_cosine),
            "components for 90 %": _said(one.components, 0) + ("" if np.isnan(one.components) else f" of {one.room}"),
            "effective rank": _said(one.rank, 1),
            "least sd": _said(one.least_sd),
            "AUROC (degree product)": ", ".join(
                f"{link.edge_type} {_said(link.auroc, 3)} ({_said(link.degree_auroc, 3)})" for link in one.links
            ),
            "status": one.status.upper() if one.status == "collapsed" else one.status,
            "why": one.why,
        }
        rows.append(row)
    table = pd.DataFrame(rows)
    return table if any(one.links for one in found) else table.drop(columns="AUROC (degree product)", errors="ignore")


def health_line(found: Sequence[TypeHealth]) -> str:
    """The worst level, of whom, and the first reason of the first three."""
    judged = [one for one in found if one.status != "undefined"]
    if not judged:
        return "undefined: no node type has 3 nodes"
    level = min((one.status for one in judged), key=LEVELS.index)
    those, n_types = [one for one in judged if one.status == level], sum(not one.whole for one in judged)
    n_those = sum(not one.whole for one in those)
    counted = f"all {n_types} node types" if n_those == n_types else f"{n_those} of {n_types} node types"
    heads = ["all nodes together"] * (len(those) > n_those) + [counted] * (n_those > 0)
    named = "; ".join(f"{one.node_type}: {one.reasons[0]}" for one in those[:3])
    head = f"{' and '.join(heads)}. " * (n_types > 1)
    return f"{level}: {head}{named}" + ("; ..." if len(those) > 3 else "")


def print_health(found: Sequence[TypeHealth]) -> None:
    """Print the collapse table and the sentence."""
    from rich.table import Table
    from rich.text import Text

    from torchcell.io.console import Console

    content = health_table(found)
    table = Table(title="Health of the embeddings, by node type", title_justify="left")
    for name in content.columns:
        words = name in ("type", "status", "why", "AUROC (degree product)")
        table.add_column(name, justify="left" if words else "right", no_wrap=name == "type", overflow="fold")
    for one, row in zip(found, content.itertuples(index=False), strict=True):
        table.add_row(*(Text(str(cell)) for cell in row), style=COLORS[one.status] if one.status != "healthy" else "")
    console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)
    console.print(table)
    said = health_line(found)
    console.print(Text(said, style=f"bold {COLORS[said.partition(':')[0]]}"), soft_wrap=True)


def health_sections(
    x_ND: np.ndarray,
    type_N: np.ndarray,
    found: Sequence[TypeHealth],
    energies: Mapping[str, float] | None = None,
    seed: int = 0,
) -> list[Section]:
    """What the page says of the embeddings.

    Args:
        x_ND: One row a node [N, D].
        type_N: Node type of each node [N].
        found: Their health, type by type.
        energies: Dirichlet energy by relation, where edges are known.
        seed: Of the pairs and nodes that are drawn.
    """
    x_ND = np.asarray(x_ND, dtype=np.float64)
    by_type = {one.node_type: x_ND if one.whole else x_ND[type_N == one.node_type] for one in found}
    bounds, said = found[0].bounds, health_line(found)
    sections = [
        Section("Health of the embeddings", f"{said[0].upper()}{said[1:]}. {bounds.text}", table=health_table(found)),
        Section(
            "How alike the nodes of a type are",
            "The cosine of pairs of nodes of one type. A healthy node type lies around 0; a pile at 1 is a collapse.",
            cosine_histograms(by_type, seed, bounds.cosine_bound),
            name="cosines",
            caption=f"All pairs, or {PAIRS:,} drawn at random; the dashed line is the mean over all pairs, the dotted "
            f"line the bound of {bounds.cosine_bound}.",
        ),
        Section(
            "Where the nodes of a type lie",
            "The two directions of most variance, for each node type its own. Few separate spots are a collapse.",
            kind_maps(by_type, seed),
            name="pca",
            caption=f"PCA of each node type; at most {POINTS:,} nodes, chosen at random.",
        ),
    ]
    if energies:
        table = pd.DataFrame({"relation": list(energies), "Dirichlet energy": [_said(e) for e in energies.values()]})
        text = (
            "Squared distance over the edges of each relation, as a share of the squared length of their ends: 0 where "
            "the two ends are alike, 1 where they have nothing in common."
        )
        sections.append(Section("How alike the ends of an edge are", text, table=table))
    return sections


def write_health_page(
    page: Path, found: Sequence[TypeHealth], sections: Sequence[Section], facts: Mapping[str, Any]
) -> list[Path]:
    """Write ``sections`` as a page whose first line is the verdict; see ``write_page``."""
    from torchcell.report.page import write_page

    verdict = health_line(found)
    tone = TONES.get(verdict.partition(":")[0], "open")
    return write_page(page, name="Embeddings of nodes", verdict=verdict, tone=tone, sections=sections, facts=facts)


def cosine_histograms(by_type: Mapping[str, np.ndarray], seed: int = 0, bound: float = TRAINING.cosine) -> Figure:
    """A panel a node type; ``bound`` is the mean cosine up to which a node type may be healthy."""
    from torchcell.knowledge_graph.embedding_health import mean_cosine
    from torchcell.report.plots import BLUE, GREY, INK

    figure, panels = _grid(by_type, 2.0)
    for axis, (node_type, x_ND) in zip(panels, by_type.items(), strict=False):
        cosine = pair_cosines(x_ND, seed)
        axis.axvline(bound, color=GREY, lw=0.9, ls=":")
        if len(cosine):
            axis.hist(cosine, bins=np.linspace(-1, 1, 51), color=BLUE, density=True)
            axis.axvline(mean_cosine(x_ND), color=INK, lw=0.9, ls=(0, (4, 3)))
        axis.set(xlim=(-1.02, 1.02), yticks=[])
        axis.set_xlabel("cosine")
        axis.set_title(f"{node_type}   n = {len(x_ND):,}", fontsize=8, loc="left")
    return figure


def kind_maps(by_type: Mapping[str, np.ndarray], seed: int = 0) -> Figure:
    """PCA, a panel a node type."""
    from torchcell.report.plots import BLUE

    figure, panels = _grid(by_type, 2.4)
    for axis, (node_type, x_ND) in zip(panels, by_type.items(), strict=False):
        scores, shares = principal_components(x_ND)
        drawn = np.sort(np.random.default_rng(seed).permutation(len(x_ND))[:POINTS])
        one = pca_map(scores, shares)
        size = float(np.clip(1_500 / max(len(drawn), 1), 2, 12))
        axis.scatter(*one.xy[drawn].T, s=size, color=BLUE, alpha=0.5, linewidths=0, rasterized=True)
        axis.set(xlabel=one.labels[0].replace(" of the variance", ""), ylabel=one.labels[1])
        axis.set_title(f"{node_type}   n = {len(x_ND):,}", fontsize=8, loc="left")
    return figure


def pair_cosines(x_ND: np.ndarray, seed: int = 0) -> np.ndarray:
    """Cosines of all pairs of rows, or of ``PAIRS`` drawn at random; without rows of zeros."""
    x_ND = x_ND[x_ND.any(1)]
    n = len(x_ND)
    if n < 2:
        return np.empty(0)
    unit_ND = x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)
    if n * (n - 1) // 2 <= PAIRS:
        return (unit_ND @ unit_ND.T)[np.triu_indices(n, 1)].clip(-1, 1)  # 1 + rounding would fall off the histogram
    rng = np.random.default_rng(seed)
    first = rng.integers(0, n, PAIRS)
    second = (first + rng.integers(1, n, PAIRS)) % n  # never a node with itself
    return np.einsum("nd,nd->n", unit_ND[first], unit_ND[second]).clip(-1, 1)


def _grid(by_type: Mapping[str, np.ndarray], height: float) -> tuple[Figure, list]:
    """Panels in rows of up to 4; those too many are blank."""
    from torchcell.report.plots import canvas

    columns = min(4, len(by_type))
    rows = -(-len(by_type) // columns)
    figure, axes = canvas(2.3 * columns, height * rows, columns, rows)
    for axis in axes.flat[len(by_type) :]:
        axis.set_axis_off()
    return figure, list(axes.flat)


def _said(value: float, places: int | None = None) -> str:
    return "undefined" if np.isnan(value) else number(value, places)


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
"""Heading -> what follows the edge type's name in ``metrics.csv``."""


def relation_table(table: pd.DataFrame, model: str, edge_types: Sequence[str]) -> pd.DataFrame:
    """The model's scores, a row an edge type, then their mean; in brackets the best baseline's.

    Args:
        table: Long, with ``system, metric, value``, as in ``metrics.csv``.
        model: The system under test; all others are baselines.
        edge_types: The supervised ones.

    Returns:
        ``relation`` and the ``COLUMNS``, as text; an undefined score is a dash.
    """
    value = table.pivot_table(index="metric", columns="system", values="value", aggfunc="first", dropna=False)
    wanted = [f"{edge_type}_{ending}" for edge_type in edge_types for ending in COLUMNS.values()]
    value = value.reindex(wanted)
    shape = len(edge_types), len(COLUMNS)
    own = (value[model] if model in value else pd.Series(np.nan, wanted)).to_numpy(dtype=float).reshape(shape)
    others = value.drop(columns=model, errors="ignore").astype(float)
    best = others.max(axis=1).to_numpy(dtype=float).reshape(shape)
    rows = [[_cell(a, b) for a, b in zip(*pair, strict=True)] for pair in zip(own, best, strict=True)]
    # The mean of a baseline is that of one system, not of the best of each row.
    means = others.to_numpy(dtype=float).reshape(*shape, -1).mean(axis=0)
    top = [_best(row) for row in means]
    rows.append([_cell(a, b) for a, b in zip(own.mean(axis=0), top, strict=True)])
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    found.insert(0, "relation", [*edge_types, "mean"])
    return found


def relation_sections(table: pd.DataFrame, model: str, edge_types: Sequence[str]) -> list[Section]:
    """The table on the page; nothing where fewer than two edge types are supervised."""
    if len(edge_types) < 2:
        return []
    text = (
        f"{model}, and in brackets the best baseline of that cell (in the last row the best mean of one baseline). "
        "Ranks are filtered. Intervals are in metrics.csv and in the tables of the outputs; no difference is shown to "
        "be real by this table alone."
    )
    return [Section(TITLE, text, table=relation_table(table, model, edge_types))]


def _best(values: np.ndarray) -> float:
    return float(np.nanmax(values)) if np.isfinite(values).any() else np.nan


def _cell(own: float, best: float) -> str:
    said = "–" if np.isnan(own) else f"{own:.3f}"
    return said if np.isnan(best) else f"{said} ({best:.3f})"
