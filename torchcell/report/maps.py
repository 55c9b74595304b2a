"""Maps of embeddings: PCA and UMAP of a model's embeddings of samples, colored by phenotype."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from torchcell.io.threads import threads_kept
from torchcell.report.layout import number
from torchcell.report.sections import MOST_OUTPUTS, Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure


TITLE = "Embeddings of the samples"
MOST_COMPONENTS = 50
FEWEST = 5
"""With fewer samples no map is drawn."""
NEAREST = 10
"""Number of nearest samples whose mean phenotype a sample is compared with."""


@dataclass(frozen=True, eq=False)
class Map:
    """Coordinates of n samples on a plane.

    Attributes:
        xy: Coordinates [n, 2].
        labels: Labels of the two axes.
        scaled: Whether the axes have a scale; those of UMAP have none.
    """

    xy: np.ndarray
    labels: tuple[str, str]
    scaled: bool = True


def principal_components(x_ND: np.ndarray, most: int = MOST_COMPONENTS) -> tuple[np.ndarray, np.ndarray]:
    """Scores on the principal axes, and the share of the variance of each.

    The sign of an axis makes its largest loading positive, so that the same embeddings give the same map.

    Args:
        x_ND: Finite values [N, D].
        most: Largest number of components; fewer where N - 1 or D is smaller.

    Returns:
        Scores float32 [N, K] and shares [K], largest first; shares of 0 where all rows are equal.
    """
    x_ND = np.asarray(x_ND, dtype=np.float64)
    size = np.square(x_ND).sum()
    x_ND = x_ND - x_ND.mean(0)
    n_components = max(1, min(most, x_ND.shape[1], len(x_ND) - 1))
    # D is a few hundred at most, so that the covariance is small for any number of samples.
    variance_D, axes_DD = np.linalg.eigh(x_ND.T @ x_ND / max(len(x_ND) - 1, 1))
    axes_DK = axes_DD[:, ::-1][:, :n_components]
    axes_DK = axes_DK * np.sign(axes_DK[np.abs(axes_DK).argmax(0), np.arange(n_components)])
    variance_D = variance_D[::-1].clip(min=0)
    total = variance_D.sum()
    # Equal float32 rows spread by a millionth, from rounding.
    flat = total * len(x_ND) <= 1e-12 * size
    shares_K = np.zeros(n_components) if flat else variance_D[:n_components] / total
    return (x_ND @ axes_DK).astype(np.float32), shares_K


def umap_coordinates(x_NK: np.ndarray, seed: int = 0) -> np.ndarray:
    """UMAP of the rows of ``x_NK`` [N, K] with scanpy's defaults, float32 [N, 2]; the same for the same seed."""
    import anndata
    import scanpy

    table = anndata.AnnData(np.asarray(x_NK, dtype=np.float32))
    with threads_kept():
        scanpy.pp.neighbors(table, n_neighbors=min(15, len(x_NK) - 1), use_rep="X", random_state=seed)
        scanpy.tl.umap(table, random_state=seed)
    return np.asarray(table.obsm["X_umap"], dtype=np.float32)


def pca_map(scores_NK: np.ndarray, shares_K: np.ndarray) -> Map:
    """The first two components, with their shares in the labels; a second axis of zeros where there is one only."""
    xy = np.zeros((len(scores_NK), 2), dtype=np.float32)
    width = min(2, scores_NK.shape[1])
    xy[:, :width] = scores_NK[:, :width]
    shares = [*shares_K[:2], 0.0][:2]
    return Map(xy, (f"PC1 ({100 * shares[0]:.0f} % of the variance)", f"PC2 ({100 * shares[1]:.0f} %)"))


def umap_map(xy: np.ndarray) -> Map:
    """Coordinates of ``umap_coordinates``, whose distances have no unit."""
    return Map(xy, ("UMAP 1", "UMAP 2"), scaled=False)


def draw_maps(
    maps: Sequence[Map],
    phenotypes: Mapping[str, np.ndarray],
    columns: int | None = None,
    names: Sequence[str] = (),
) -> Figure:
    """A panel for each phenotype and map, colored by the phenotype.

    Colors run from the 2nd to the 98th percentile, around 0 where values lie on both sides of it. Values farthest from
    the median are drawn last; a sample without a value is an empty ring.

    Args:
        maps: Maps of the same samples.
        phenotypes: Values [n] by label.
        columns: Panels in a row; by default one row for each phenotype.
        names: Names of the samples [n], which a page shows under the pointer; none: without.
    """
    from torchcell.report.plots import canvas

    columns = columns or len(maps)
    panels = [(plane, label, values) for label, values in phenotypes.items() for plane in maps]
    rows = -(-len(panels) // columns)
    figure, axes = canvas(4.6 * columns, 3.7 * rows, columns, rows)
    for axis, (plane, label, values) in zip(axes.flat, panels, strict=False):
        _panel(figure, axis, plane, label, np.asarray(values, dtype=np.float64), names)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    return figure


def _panel(figure: Figure, axis: Axes, one: Map, label: str, values_N: np.ndarray, names: Sequence[str]) -> None:
    from torchcell.report.plots import INK, RULE
    from torchcell.report.svg import name_points

    known = np.flatnonzero(~np.isnan(values_N))
    lacking = np.isnan(values_N)
    size = float(np.clip(3_000 / max(len(values_N), 1), 3, 14))
    x, y = one.xy.T
    axis.scatter(
        x[lacking], y[lacking], s=size, facecolors="none", edgecolors=RULE, linewidths=0.5, rasterized=not names
    )
    if len(known):
        known = known[np.abs(values_N[known] - np.median(values_N[known])).argsort(kind="stable")]
        low, high, shades = color_scale(values_N[known])
        drawn = axis.scatter(
            x[known],
            y[known],
            c=values_N[known],
            s=size,
            cmap=shades,
            vmin=low,
            vmax=high,
            linewidths=0,
            rasterized=not names,
        )
        if names:
            name_points(drawn, [f"{names[i]}: {label} {number(values_N[i])}" for i in known])
        bar = figure.colorbar(drawn, ax=axis, shrink=0.7, pad=0.02, extend="both")
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7, length=2, colors=INK)
        bar.set_label(label, size=8, color=INK)
    axis.set(xlabel=one.labels[0], ylabel=one.labels[1])
    if not one.scaled:
        axis.set(xticks=[], yticks=[])


def color_scale(values: np.ndarray) -> tuple[float, float, Colormap]:
    """Limits and colors for ``values`` without NaN; diverging around 0 where values lie on both sides of it."""
    from matplotlib.colors import LinearSegmentedColormap

    from torchcell.report.plots import BLUE, INK, RULE, YELLOW

    low, high = (float(limit) for limit in np.percentile(values, [2, 98]))
    if low < 0 < high:
        reach = max(-low, high)
        return -reach, reach, LinearSegmentedColormap.from_list("around 0", [BLUE, RULE, YELLOW])
    if low == high:  # e.g. a rare class: the percentiles alone would give it no color of its own
        low, high = float(values.min()), float(values.max())
    return low, high, LinearSegmentedColormap.from_list("rising", ["#C9D6E2", BLUE, INK])


def latent_section(
    name: str,
    x_ND: np.ndarray,
    measured: Mapping[str, np.ndarray],
    part: str,
    n_whole: int,
    umap: bool = False,
    seed: int = 0,
    names: Sequence[str] = (),
) -> Section:
    """The section of the report with the map of one embedding.

    Args:
        name: Name of the embedding, e.g. ``z_S``.
        x_ND: One row a sample [N, D].
        measured: Measured values [N] by phenotype, NaN where missing; the first few are drawn.
        part: Part of the samples.
        n_whole: Number of samples in that part, of which N were drawn at random.
        umap: Whether to draw a UMAP beside the PCA; it takes about ten seconds.
        seed: Seed of the UMAP.
        names: Names of the samples [N], for the page; none: without.
    """
    n, width = x_ND.shape
    drawn = f"{n:,} samples" if n == n_whole else f"{n:,} of {n_whole:,} samples, chosen at random,"
    opening = f"The model's embedding {name!r} ({width} numbers a sample) of {drawn} of the {part} part."
    if n < FEWEST or not np.isfinite(x_ND).all():
        why = f"fewer than {FEWEST} samples" if n < FEWEST else "some embeddings are not finite"
        return Section(TITLE, f"{opening} Not drawn: {why}.")
    scores_NK, shares_K = principal_components(x_ND)
    if not shares_K.any():
        return Section(TITLE, f"{opening} Not drawn: the embedding is the same for all samples.")
    maps = [pca_map(scores_NK, shares_K), *([umap_map(umap_coordinates(scores_NK, seed))] if umap else [])]
    shown = dict(list(measured.items())[:MOST_OUTPUTS])
    variance = " and ".join(f"{100 * share:.0f} %" for share in shares_K[:2])
    text = (
        f"{opening} Samples that lie together are alike to the model; where colors change along a direction, the model "
        f"separates these phenotypes by it. The first principal components have {variance} of the variance."
    )
    caption = (
        f"{'PCA (left) and UMAP (right)' if umap else 'PCA'} of {name}, colored by the measured value, from the 2nd "
        "to the 98th percentile; values far from the median on top, rings are samples without a value."
    )
    columns = None if umap else min(2, len(shown))
    labels = {f"measured {phenotype}": values for phenotype, values in shown.items()}
    figure = draw_maps(maps, labels, columns, names)
    return Section(TITLE, text, figure, _shared(x_ND, scores_NK, shown), "latent_maps", caption)


def _shared(x_ND: np.ndarray, scores_NK: np.ndarray, measured: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """How well the embedding predicts each phenotype: r with both components and with the mean of nearest samples."""
    rows = []
    for phenotype, values in measured.items():
        known = ~np.isnan(values)
        truth = np.asarray(values, dtype=np.float64)[known]
        row = {"measured phenotype": phenotype, "samples": f"{len(truth):,}"}
        for k in range(min(2, scores_NK.shape[1])):
            row[f"r with PC{k + 1}"] = _correlation(truth, scores_NK[known, k])
        nearest = nearest_mean(x_ND[known], truth) if len(truth) > NEAREST else np.full_like(truth, np.nan)
        rows.append(row | {f"r with the mean of the {NEAREST} nearest samples": _correlation(truth, nearest)})
    return pd.DataFrame(rows)


def nearest_mean(x_ND: np.ndarray, values_N: np.ndarray, k: int = NEAREST) -> np.ndarray:
    """Mean of ``values_N`` over the ``k`` nearest other rows of ``x_ND`` for each row [N]; needs N > k."""
    x_ND = np.asarray(x_ND, dtype=np.float64)
    x_ND = x_ND - x_ND.mean(0)
    square_N = np.square(x_ND).sum(1)
    distance_NN = square_N[:, None] + square_N - 2 * x_ND @ x_ND.T
    np.fill_diagonal(distance_NN, np.inf)
    return values_N[np.argpartition(distance_NN, k - 1, axis=1)[:, :k]].mean(1)


def _correlation(a: np.ndarray, b: np.ndarray) -> str:
    defined = len(a) > 2 and np.std(a) > 0 and np.std(b) > 0
    return number(float(np.corrcoef(a, b)[0, 1])) if defined else "undefined"
