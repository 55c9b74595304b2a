"""Plots of the report: predictions, residuals, learning curves, forest of comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from torchcell.evaluation.checks import RULES_ABOVE
from torchcell.evaluation.evaluate import Evaluation
from torchcell.evaluation.registry import metric, metric_set
from torchcell.evaluation.results import Results
from torchcell.report.layout import compared_names, number, role, span
from torchcell.report.svg import name_points

BLUE, ORANGE, GREEN, SKY, PINK, YELLOW = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#CC79A7", "#E69F00"
GREY, INK, RULE = "#8A9099", "#22272E", "#D5DAE0"
COLORS = {"model": BLUE, "comparator": YELLOW, "baseline": GREY, "ceiling": PINK}
"""By role; green and red are kept for better and worse."""
SCATTER_UP_TO = 1500
"""More points are drawn as a density."""
NAMED_OUTLIERS = 100
"""Points of a density that are drawn on top and named: those farthest from the line of perfect prediction."""
MOST_SIZES = 6


def canvas(
    width: float, height: float, columns: int = 1, rows: int = 1, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, np.ndarray]:
    """A figure in inches with a grid of plain axes [rows, columns]."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    for axis in axes.flat:
        plain(axis)
    return figure, axes


def plain(axes: Axes) -> None:
    """Style of axes: two thin spines, small ticks, dark grey text."""
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
    """Prediction against measured value with the identity line; a panel per system, all on the same scale.

    Args:
        results: The predictions; for expression all genes of all samples are pooled.
        systems: Systems to draw, e.g. the model and the best baseline.
        output: Position of the output.
        units: Unit by output name.
    """
    if metric_set(results.task).labels:
        return None
    pooled = results.per_gene
    truth = _of_output(results.measured, output, pooled)
    drawn = []
    for system in systems:
        predicted = _of_output(results.systems[system], output, pooled)
        defined = np.flatnonzero(~np.isnan(truth) & ~np.isnan(predicted))
        if len(defined) > 1:
            drawn.append((system, truth[defined], predicted[defined], defined))
    if not drawn:
        return None
    x_low, x_high = _range(np.concatenate([x for _, x, _, _ in drawn]))
    y_low, y_high = _range(np.concatenate([y for _, _, y, _ in drawn]))
    name = "expression" if pooled else with_unit(results.outputs[output], units)
    figure, axes = canvas(4.2 * len(drawn), 4.0, len(drawn), sharex=True, sharey=True)
    for one, (system, x, y, row) in zip(axes[0], drawn, strict=True):
        color = COLORS[role(results, system)]
        one.set(xlim=(x_low, x_high), ylim=(y_low, y_high), xlabel=f"measured {name}")
        inside = np.flatnonzero((x_low <= x) & (x <= x_high) & (y_low <= y) & (y <= y_high))
        if len(x) > SCATTER_UP_TO:
            shades = LinearSegmentedColormap.from_list("density", ["#F4F6F8", color, INK])
            extent = (x_low, x_high, y_low, y_high)
            density = one.hexbin(x, y, gridsize=55, extent=extent, bins="log", mincnt=1, cmap=shades, linewidths=0)
            bar = figure.colorbar(density, ax=one, shrink=0.6, pad=0.02)
            bar.outline.set_visible(False)
            bar.ax.tick_params(labelsize=7, length=2)
            bar.set_label("values per cell", size=8)
            inside = inside[np.abs(y - x)[inside].argsort(kind="stable")[-NAMED_OUTLIERS:]]
            style = {"facecolors": "none", "edgecolors": INK, "linewidths": 0.4}
        else:
            style = {"color": color, "alpha": 0.5, "linewidths": 0}
        points = one.scatter(x[inside], y[inside], s=9, **style)
        names = _names_of(results, row[inside])
        name_points(points, [f"{n}: measured {number(a)}, predicted {number(b)}"
                             for n, a, b in zip(names, x[inside], y[inside], strict=True)])  # fmt: skip
        ends = (max(x_low, y_low), min(x_high, y_high))
        one.plot(ends, ends, color=INK, lw=0.9, ls=(0, (4, 3)))
        r = np.corrcoef(x, y)[0, 1] if np.std(x) > 0 and np.std(y) > 1e-6 * np.abs(y).max() else np.nan
        text = "r undefined" if np.isnan(r) else f"r = {r:.3f}"
        one.set_title(f"{system}   {text}, n = {len(x):,}", fontsize=9, loc="left")
    axes[0, 0].set_ylabel(f"predicted {name}")
    return figure


def _of_output(values: Any, output: int, pooled: bool) -> np.ndarray:
    """The values [n, T] of one output [n], or of all of them [n * T]."""
    values = np.asarray(values, dtype=np.float64)
    return values.ravel() if pooled else values[:, output]


def _names_of(results: Results, rows: np.ndarray) -> list[str]:
    """Names of samples, or of sample and gene where all outputs are pooled."""
    if not results.per_gene:
        return [str(one) for one in np.asarray(results.sample_id, dtype=object)[rows]]
    samples, genes = np.divmod(rows, len(results.outputs))
    return [f"{results.sample_id[i]}, {results.outputs[j]}" for i, j in zip(samples, genes, strict=True)]


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
        color = COLORS[role(results, system)]
        place = np.arange(len(sizes)) + (k - (len(systems) - 1) / 2) * width
        one.boxplot(
            groups,
            positions=place,
            widths=0.85 * width,
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            label=system,
            boxprops={"facecolor": color, "alpha": 0.45, "edgecolor": color},
            medianprops={"color": INK, "lw": 1.4},
            whiskerprops={"color": color},
            capprops={"color": color},
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
    """ROC and precision-recall curves; ``systems`` in color, all others in thin grey."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    truth = np.asarray(results.measured, dtype=np.float64)[:, output]
    if not metric_set(results.task).labels or len(np.unique(truth[~np.isnan(truth)])) < 2:
        return None
    figure, axes = canvas(8.4, 4.0, 2)
    prevalence = np.nanmean(truth)
    axes[0, 0].plot([0, 1], [0, 1], color=INK, lw=0.9, ls=(0, (4, 3)))
    axes[0, 1].axhline(prevalence, color=INK, lw=0.9, ls=(0, (4, 3)), label=f"prevalence {prevalence:.3f}")
    colors = dict(zip(systems, (BLUE, INK), strict=False))
    for system in sorted(results.ordered, key=lambda name: name in colors):
        score = np.asarray(results.systems[system], dtype=np.float64)[:, output]
        defined = ~np.isnan(truth) & ~np.isnan(score)
        if len(np.unique(truth[defined])) < 2:
            continue
        false_positive, true_positive, _ = roc_curve(truth[defined], score[defined])
        precision, recall, _ = precision_recall_curve(truth[defined], score[defined])
        color = colors.get(system, PINK if system == results.ceiling else RULE)
        style = {"color": color, "lw": 2.0 if system in colors else 1.1}
        label = system if system in colors or system == results.ceiling else None
        axes[0, 0].plot(false_positive, true_positive, label=label, **style)
        axes[0, 1].step(recall, precision, where="post", **style)
    axes[0, 0].set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01))
    axes[0, 1].set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.01))
    axes[0, 0].legend(frameon=False, fontsize=8, loc="lower right")
    axes[0, 1].legend(frameon=False, fontsize=8, loc="upper right")
    return figure


def _range(values: np.ndarray) -> tuple[float, float]:
    """Range of the values without the outer thousandth on either side, with a margin."""
    low, high = np.percentile(values, [0.1, 99.9])
    margin = 0.05 * (high - low) or 0.5
    return float(low - margin), float(high + margin)


PALETTE = (BLUE, YELLOW, PINK, SKY, INK, GREY)
MOST_METRICS = 6


def learning_curves(history: pd.DataFrame) -> Figure | None:
    """Losses in the left panel, validation metrics in the right one; the best epoch is marked.

    Args:
        history: One row per epoch: ``epoch``, ``train/loss``, ``val/loss``, ``val/score`` and
            ``val/<output>/<Metric>``, as far as there are any.
    """
    losses = [name for name in ("train/loss", "val/loss") if name in history and history[name].notna().any()]
    scores = _scores(history)
    if not losses and not scores:
        return None
    figure, axes = canvas(8.4, 3.2, 2)
    for name, color in zip(losses, (GREY, BLUE), strict=False):
        _curve(axes[0, 0], history[["epoch", name]].dropna(), color)
    for name, color in zip(scores, PALETTE, strict=False):
        _curve(axes[0, 1], history[["epoch", name]].dropna(), color)
    if "val/score" in history and history["val/score"].notna().any():
        rows = history[["epoch", "val/score"]].dropna()
        epoch, score = rows.to_numpy(dtype=float)[rows["val/score"].argmax()]
        for one in axes[0]:
            one.axvline(epoch, color=INK, lw=0.9, ls=(0, (1, 2)), zorder=0)
        side, shift = ("right", -4) if epoch > history.epoch.median() else ("left", 4)
        axes[0, 1].annotate(f"best, epoch {epoch:.0f}: {score:.3f}", (epoch, 0.03), (shift, 0), ha=side, fontsize=8,
                            xycoords=("data", "axes fraction"), textcoords="offset points", color=INK)  # fmt: skip
    axes[0, 0].set(xlabel="epoch", ylabel="loss")
    axes[0, 1].set(xlabel="epoch", ylabel="validation metric")
    for one in axes[0]:
        if one.get_legend_handles_labels()[0]:
            one.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
        one.xaxis.get_major_locator().set_params(integer=True)
    return figure


def loss_shares(history: pd.DataFrame) -> Figure | None:
    """Share of each loss term, stacked; None for a single term."""
    names = [name for name in history.columns if name.startswith("train/share/")]
    rows = history[["epoch", *names]].dropna() if names else history[:0]
    if len(names) < 2 or len(rows) < 1:
        return None
    figure, axes = canvas(8.4, 2.6)
    one = axes[0, 0]
    terms = [name.removeprefix("train/share/") for name in names]
    if len(rows) == 1:  # an area needs two epochs
        rows = pd.concat([rows, rows.assign(epoch=rows.epoch + 1)])
    one.stackplot(rows.epoch, rows[names].to_numpy().T, labels=terms, colors=PALETTE, alpha=0.8, lw=0)
    for level in (RULES_ABOVE, 1 - RULES_ABOVE):
        one.axhline(level, color=INK, lw=0.8, ls=(0, (1, 2)))
    one.set(xlabel="epoch", ylabel="share of the loss", ylim=(0, 1), xlim=(rows.epoch.min(), rows.epoch.max()))
    one.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=min(len(terms), 5))
    one.xaxis.get_major_locator().set_params(integer=True)
    return figure


def bars(values: Mapping[str, float], label: str) -> Figure:
    """Named values as horizontal bars, the largest on top."""
    names = sorted(values, key=lambda name: values[name])
    figure, axes = canvas(5.2, 0.6 + 0.24 * len(names))
    axes[0, 0].barh(names, [values[name] for name in names], color=GREY, height=0.7)
    axes[0, 0].set(xlabel=label)
    return figure


def _scores(history: pd.DataFrame) -> list[str]:
    """Names of the validation metrics of outputs; else ``val/score``."""
    errors = ("/MSE", "/loss", "/score")
    names = [n for n in history.columns if n.startswith("val/") and not n.endswith(errors) and "/loss/" not in n]
    names = [name for name in names if pd.api.types.is_numeric_dtype(history[name]) and history[name].notna().any()]
    fallback = ["val/score"] if "val/score" in history and history["val/score"].notna().any() else []
    return names[:MOST_METRICS] or fallback


def _curve(one: Axes, rows: pd.DataFrame, color: str) -> None:
    """A named value by epoch; its points are visible where they are few, and under the pointer always."""
    name = str(rows.columns[1])
    shown = color if len(rows) < 40 else "none"
    markers: dict[str, Any] = {"marker": "o", "ms": 4, "markerfacecolor": shown, "markeredgecolor": shown}
    (line,) = one.plot(rows.epoch, rows[name], color=color, lw=1.8, label=name, **markers)
    name_points(line, [f"epoch {epoch:.0f}: {name} {number(value)}" for epoch, value in rows.to_numpy(dtype=float)])


MOST_PANELS = 8


def forest(evaluation: Evaluation, results: Results) -> Figure | None:
    """A panel per compared metric: no skill dotted, an arrow for a value outside the scale."""
    names = compared_names(evaluation)[:MOST_PANELS]
    systems = list(reversed(results.ordered))
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    figure, axes = canvas(1.8 + 1.7 * columns, rows * (0.75 + 0.25 * len(systems)), columns, rows, sharey=True)
    roles = {system: role(results, system) for system in systems}
    for one, (name, scored) in zip(axes.flat, names, strict=False):
        scores = evaluation.table[evaluation.table.metric == name].set_index("system").loc[systems]
        output, _, short = name.rpartition("/")
        measure = metric(short, scored.task)
        t = scored.outputs.index(output) if output and not scored.per_gene else 0
        no_skill = measure.no_skill_value(np.asarray(scored.measured)[:, t], scored.rank_within)
        _panel(one, scores, roles, no_skill)
        title = f"{short} {'↑' if measure.higher_is_better else '↓'}"
        one.set_title(f"{output}\n{title}" if output else title, fontsize=9, loc="left")
    for one in axes.flat[len(names) :]:
        one.set_visible(False)
    for one in axes[:, 0]:
        _name_systems(one, roles)
    return figure


def forest_of(table: pd.DataFrame, roles: Mapping[str, str], name: str, higher_is_better: bool) -> Figure:
    """Value and interval of each system on one metric, from what a run has written.

    Args:
        table: Rows of ``metrics.csv``: system, metric, value, low, high, n_undefined.
        roles: Of the systems, the first on top: ``model``, ``comparator``, ``baseline`` or ``ceiling``.
        name: Of the metric, as in the table.
        higher_is_better: Whether it is.
    """
    roles = {system: roles[system] for system in reversed(list(roles))}
    figure, axes = canvas(5.0, 0.75 + 0.25 * len(roles))
    _panel(axes[0, 0], table[table["metric"] == name].set_index("system").loc[list(roles)], roles, float("nan"))
    axes[0, 0].set_title(f"{name} {'↑' if higher_is_better else '↓'}", fontsize=9, loc="left")
    _name_systems(axes[0, 0], roles)
    return figure


def _name_systems(one: Axes, roles: Mapping[str, str]) -> None:
    """Names of the systems from below, the model's in bold."""
    one.set_yticks(range(len(roles)), list(roles))
    for label, system_role in zip(one.get_yticklabels(), roles.values(), strict=True):
        if system_role == "model":
            label.set(fontweight="bold", color=COLORS["model"])


def _panel(one: Axes, rows: pd.DataFrame, roles: Mapping[str, str], no_skill: float) -> None:
    """A line a system of ``rows``, in the order of ``roles``; a dotted line at ``no_skill`` where that is a number."""
    model = next(system for system, system_role in roles.items() if system_role == "model")
    low, high = _scale(rows, model, no_skill)
    numbers = rows[["value", "low", "high", "n_undefined"]].to_numpy(dtype=float)
    for place, (system, (value, start, stop, undefined)) in enumerate(zip(rows.index, numbers, strict=True)):
        system_role = roles[str(system)]
        # White behind the text, so that no line crosses it.
        style: dict[str, Any] = {"bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.8}}
        style |= {
            "transform": one.get_yaxis_transform(),
            "fontsize": 7,
            "color": COLORS[system_role],
            "va": "center",
        }
        if np.isnan(value):
            one.text(0.02, place, f"undefined ({undefined:,.0f})", style="italic", **style)
        elif value < low:
            one.text(0.02, place, f"◂ {number(value)}", **style)
        elif value > high:
            one.text(0.98, place, f"{number(value)} ▸", ha="right", **style)
        else:
            if not np.isnan(start):
                one.plot([start, stop], [place, place], color=COLORS[system_role], lw=1.8, solid_capstyle="round")
            (point,) = one.plot(value, place, "D" if system_role == "model" else "o", color=COLORS[system_role], ms=5)
            name_points(point, [f"{system}: {number(value)} {span(start, stop)}".strip()])
    if not np.isnan(no_skill) and low <= no_skill <= high:
        one.axvline(no_skill, color=INK, lw=0.9, ls=(0, (1, 2)), zorder=0)
    one.set(xlim=(low, high), ylim=(-0.6, len(rows) - 0.4))
    one.grid(axis="x", color=RULE, lw=0.5)
    one.set_axisbelow(True)
    one.locator_params(axis="x", nbins=3)


def _scale(rows: pd.DataFrame, model: str, no_skill: float) -> tuple[float, float]:
    """Limits that show the middle systems, the model and no skill; a very bad system does not widen them."""
    limits = rows[["low", "value", "high"]].to_numpy(dtype=float)
    values = rows.value.to_numpy(dtype=float)
    shown = [no_skill, *rows.loc[model, ["low", "value", "high"]].to_numpy(dtype=float)]
    shown += list(np.nanpercentile(values, [25, 75])) if not np.isnan(values).all() else []
    shown = [value for value in shown if not np.isnan(value)] or [0.0, 1.0]
    low, high = min(shown), max(shown)
    room = (high - low) or abs(high) or 1.0
    near = limits[(limits >= low - room) & (limits <= high + room)]
    low, high = min([low, *near]), max([high, *near])
    margin = 0.06 * ((high - low) or room)
    return low - margin, high + margin
