"""Figures of predictions: against what was measured, by set size, by metric, and as ranking curves.

Every function returns a ``Figure``, or None where its input is missing; nothing touches pyplot's global state.
Colours are those of Okabe and Ito (2008), which colour-blind readers tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from torchcell.metrics.results import Results
from torchcell.report.layout import role

BLUE, ORANGE, GREEN, SKY, PINK, YELLOW = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#CC79A7", "#E69F00"
GREY, INK, RULE = "#8A9099", "#22272E", "#D5DAE0"
COLOUR = {"model": BLUE, "rival": ORANGE, "baseline": GREY, "ceiling": GREEN}
SCATTER_UP_TO = 1500
"""Points drawn singly; more are drawn as a density."""
MOST_SIZES = 6


def canvas(
    width: float, height: float, columns: int = 1, rows: int = 1, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, np.ndarray]:
    """A figure in inches with a grid of plain axes [rows, columns]."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    for one in axes.flat:
        plain(one)
    return figure, axes


def plain(axes: Axes) -> None:
    """Two thin spines, small ticks, ink that is not quite black."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(colors=INK, labelsize=8, length=3, color=RULE)
    for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
        label.set_color(INK)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)


def with_unit(name: str, units: Mapping[str, str] | None) -> str:
    """``name [unit]`` where the unit is known."""
    unit = (units or {}).get(name)
    return f"{name} [{unit}]" if unit else name


def predicted_against_measured(
    results: Results, systems: list[str], output: int = 0, units: Mapping[str, str] | None = None
) -> Figure | None:
    """Prediction over measurement with the identity line, a panel per system, all on one scale.

    Args:
        results: The predictions; for expression all genes of all samples are pooled.
        systems: Whose, e.g. the model and the best baseline.
        output: Position of the output.
        units: Unit by output name.
    """
    if results.task == "binary":
        return None
    pooled = results.per_gene
    truth = np.asarray(results.measured, dtype=np.float64)
    truth = truth.ravel() if pooled else truth[:, output]
    drawn = []
    for system in systems:
        predicted = np.asarray(results.systems[system], dtype=np.float64)
        predicted = predicted.ravel() if pooled else predicted[:, output]
        held = ~np.isnan(truth) & ~np.isnan(predicted)
        if held.sum() > 1:
            drawn.append((system, truth[held], predicted[held]))
    if not drawn:
        return None
    # The model's and the measured range; a baseline far outside would squeeze both.
    x_low, x_high = _range(np.concatenate([x for _, x, _ in drawn]))
    y_low, y_high = _range(np.concatenate([y for _, _, y in drawn]))
    name = "expression" if pooled else with_unit(results.outputs[output], units)
    figure, axes = canvas(4.2 * len(drawn), 4.0, len(drawn), sharex=True, sharey=True)
    for one, (system, x, y) in zip(axes[0], drawn, strict=True):
        colour = COLOUR[role(results, system)]
        one.set(xlim=(x_low, x_high), ylim=(y_low, y_high), xlabel=f"measured {name}")
        if len(x) > SCATTER_UP_TO:
            shades = LinearSegmentedColormap.from_list("density", ["#F4F6F8", colour, INK])
            extent = (x_low, x_high, y_low, y_high)
            density = one.hexbin(x, y, gridsize=55, extent=extent, bins="log", mincnt=1, cmap=shades, linewidths=0)
            bar = figure.colorbar(density, ax=one, shrink=0.6, pad=0.02)
            bar.outline.set_visible(False)
            bar.ax.tick_params(labelsize=7, length=2)
            bar.set_label("values per cell", size=8)
        else:
            one.scatter(x, y, s=9, color=colour, alpha=0.5, linewidths=0)
        ends = (max(x_low, y_low), min(x_high, y_high))
        one.plot(ends, ends, color=INK, lw=0.9, ls=(0, (4, 3)))
        r = np.corrcoef(x, y)[0, 1] if np.std(x) > 0 and np.std(y) > 1e-6 * np.abs(y).max() else np.nan
        said = "r undefined" if np.isnan(r) else f"r = {r:.3f}"
        one.set_title(f"{system}   {said}, n = {len(x):,}", fontsize=9, loc="left")
    axes[0, 0].set_ylabel(f"predicted {name}")
    return figure


def residuals_by_set_size(
    results: Results, systems: list[str], output: int = 0, units: Mapping[str, str] | None = None
) -> Figure | None:
    """Boxes (quartiles, whiskers at 5 and 95 %) of prediction minus measurement by number of perturbed genes."""
    if results.set_size is None or results.task != "regression":
        return None
    truth = np.asarray(results.measured, dtype=np.float64)[:, output]
    size = np.minimum(np.asarray(results.set_size), np.unique(results.set_size)[:MOST_SIZES][-1])
    sizes = np.unique(size[~np.isnan(truth)])
    figure, axes = canvas(1.6 + 1.3 * max(len(sizes), 3), 3.4)
    one, width = axes[0, 0], 0.7 / len(systems)
    for k, system in enumerate(systems):
        residual = np.asarray(results.systems[system], dtype=np.float64)[:, output] - truth
        groups = [residual[(size == s) & ~np.isnan(residual)] for s in sizes]
        colour = COLOUR[role(results, system)]
        place = np.arange(len(sizes)) + (k - (len(systems) - 1) / 2) * width
        one.boxplot(
            groups,
            positions=place,
            widths=0.85 * width,
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            label=system,
            boxprops={"facecolor": colour, "alpha": 0.45, "edgecolor": colour},
            medianprops={"color": INK, "lw": 1.4},
            whiskerprops={"color": colour},
            capprops={"color": colour},
        )
    one.axhline(0, color=INK, lw=0.9, ls=(0, (4, 3)), zorder=0)
    last = "+" if (np.asarray(results.set_size) > sizes[-1]).any() else ""
    names = [f"{int(s)}{last if s == sizes[-1] else ''}\n(n = {(size == s).sum():,})" for s in sizes]
    one.set_xticks(range(len(sizes)), names)
    one.set(xlabel="perturbed genes", ylabel=f"predicted - measured\n{with_unit(results.outputs[output], units)}")
    one.set_xlim(-0.6, len(sizes) - 0.4)
    one.legend(frameon=False, fontsize=8, ncols=len(systems), loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def ranking_curves(results: Results, systems: list[str], output: int = 0) -> Figure | None:
    """ROC and precision-recall curves; ``systems`` in colour, all others in thin grey."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    truth = np.asarray(results.measured, dtype=np.float64)[:, output]
    if results.task != "binary" or len(np.unique(truth[~np.isnan(truth)])) < 2:
        return None
    figure, axes = canvas(8.4, 4.0, 2)
    prevalence = np.nanmean(truth)
    axes[0, 0].plot([0, 1], [0, 1], color=INK, lw=0.9, ls=(0, (4, 3)))
    axes[0, 1].axhline(prevalence, color=INK, lw=0.9, ls=(0, (4, 3)), label=f"prevalence {prevalence:.3f}")
    colours = dict(zip(systems, (BLUE, ORANGE), strict=False))
    for system in sorted(results.ordered, key=lambda name: name in colours):
        score = np.asarray(results.systems[system], dtype=np.float64)[:, output]
        held = ~np.isnan(truth) & ~np.isnan(score)
        if len(np.unique(truth[held])) < 2:
            continue
        fall_out, hit, _ = roc_curve(truth[held], score[held])
        precision, recall, _ = precision_recall_curve(truth[held], score[held])
        colour = colours.get(system, GREEN if system == results.ceiling else RULE)
        style = {"color": colour, "lw": 2.0 if system in colours else 1.1}
        label = system if system in colours or system == results.ceiling else None
        axes[0, 0].plot(fall_out, hit, label=label, **style)
        axes[0, 1].step(recall, precision, where="post", **style)
    axes[0, 0].set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01))
    axes[0, 1].set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.01))
    axes[0, 0].legend(frameon=False, fontsize=8, loc="lower right")
    axes[0, 1].legend(frameon=False, fontsize=8, loc="upper right")
    return figure


def _range(values: np.ndarray) -> tuple[float, float]:
    """The span of all but the most extreme thousandth on either side, with a margin."""
    low, high = np.percentile(values, [0.1, 99.9])
    margin = 0.05 * (high - low) or 0.5
    return float(low - margin), float(high + margin)
