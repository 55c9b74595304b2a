"""Figures of training by epoch: losses, validation metrics, and each term's share of the loss."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from torchcell.metrics.guards import RULES_ABOVE
from torchcell.report.plots import BLUE, GREEN, GREY, INK, ORANGE, PINK, SKY, YELLOW, canvas

PALETTE = (BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, GREY)
MOST_METRICS = 6


def learning_curves(history: pd.DataFrame) -> Figure | None:
    """Losses on the left, validation metrics on the right; the best epoch is marked.

    Args:
        history: One row per epoch: ``epoch``, ``train/loss``, ``val/loss``, ``val/score`` and
            ``val/<output>/<Metric>``, as far as there are any.
    """
    losses = [name for name in ("train/loss", "val/loss") if name in history and history[name].notna().any()]
    scores = _scores(history)
    if not losses and not scores:
        return None
    figure, axes = canvas(8.4, 3.2, 2)
    for name, colour in zip(losses, (GREY, BLUE), strict=False):
        rows = history[["epoch", name]].dropna()
        axes[0, 0].plot(rows.epoch, rows[name], color=colour, lw=1.8, marker=_marker(rows), ms=3, label=name)
    for name, colour in zip(scores, PALETTE, strict=False):
        rows = history[["epoch", name]].dropna()
        axes[0, 1].plot(rows.epoch, rows[name], color=colour, lw=1.8, marker=_marker(rows), ms=3, label=name)
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
    """Each term's share of the loss, stacked; nothing to draw for a single term."""
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


def _scores(history: pd.DataFrame) -> list[str]:
    """Validation metrics by output; the score that early stopping watches where there are none."""
    errors = ("/MSE", "/loss", "/score")
    names = [n for n in history.columns if n.startswith("val/") and not n.endswith(errors) and "/loss/" not in n]
    names = [name for name in names if pd.api.types.is_numeric_dtype(history[name]) and history[name].notna().any()]
    fallback = ["val/score"] if "val/score" in history and history["val/score"].notna().any() else []
    return names[:MOST_METRICS] or fallback


def _marker(rows: pd.DataFrame) -> str | None:
    return "o" if len(rows) < 40 else None
