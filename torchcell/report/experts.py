"""Which experts of a mixture read which cell lines and doses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from torchcell.report.plots import BLUE, INK, canvas
from torchcell.report.sections import Section

TITLE = "Which experts read what"


def expert_section(
    line_EL: np.ndarray,
    dose_EQ: np.ndarray,
    lines: Sequence[str],
    doses: Sequence[str],
    entropy: float,
    dead: Sequence[int],
) -> Section:
    """Heat maps of the experts' shares within each line and each bin of dose, and the table.

    Args:
        line_EL: Sums of routing weights by expert and line [E, L + 1], the last column for unknown lines.
        dose_EQ: By expert and bin of dose [E, Q].
        lines: Names [L].
        doses: Names of the bins in µM [Q].
        entropy: Of the experts' shares; 1 is even.
        dead: Experts that next to nothing is sent to.
    """
    if not line_EL.any():
        return Section(TITLE, "No epoch was counted yet, so nothing is known of the experts' use.")
    share_E = line_EL.sum(1) / line_EL.sum()
    n_experts = len(share_E)
    names = [*lines, "unknown line"]
    within = {"cell line": _columns(line_EL, names), "dose in µM": _columns(dose_EQ, doses)}
    text = (
        f"Sums of routing weights over the epoch of these weights. Entropy {entropy:.2f} of the {n_experts} experts' "
        f"shares, 1 being even; {f'dead: {list(dead)}' if dead else 'no expert is dead'} (below a tenth of an even "
        "share). Columns that look alike mean that the choice does not depend on the line, or on the dose. Whether the "
        "mixture beats one network of equal cost is said by torchcell.evaluate with rivals=[CKPT], CKPT being a "
        "checkpoint of model=response_mlp on the same split."
    )
    table = pd.concat([pd.DataFrame({"expert": range(n_experts), "share": share_E.round(3)}), *within.values()], axis=1)
    return Section(
        TITLE,
        text,
        _maps(within),
        table.round(3),
        "experts",
        "Share of each expert within a cell line (left) and within a bin of dose (right); a column adds up to 1.",
    )


def _columns(count_EC: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    """Shares within each column that counted anything."""
    sums_C = count_EC.sum(0)
    held = np.flatnonzero(sums_C > 0).tolist()
    return pd.DataFrame(count_EC[:, held] / sums_C[held], columns=[names[c] for c in held])


def _maps(within: dict[str, pd.DataFrame]) -> Figure:
    widths = [max(2.2, 0.34 * shares.shape[1] + 1.0) for shares in within.values()]
    n_experts = len(next(iter(within.values())))
    figure, axes = canvas(sum(widths) + 0.8, 1.6 + 0.34 * n_experts, len(within))
    axes[0, 0].get_gridspec().set_width_ratios(widths)
    for axis, (label, shares) in zip(axes[0], within.items(), strict=True):
        drawn = _map(axis, label, shares)
    bar = figure.colorbar(drawn, ax=axes[0, -1], shrink=0.8, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2)
    bar.set_label("share", size=8)
    return figure


def _map(axis: Axes, label: str, shares: pd.DataFrame):
    shades = LinearSegmentedColormap.from_list("share", ["#F4F6F8", BLUE, INK])
    drawn = axis.imshow(shares.to_numpy(), cmap=shades, vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(range(shares.shape[1]), list(shares.columns), rotation=60, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(shares)), [f"expert {number}" for number in range(len(shares))])
    axis.set(xlabel=label)
    axis.spines[:].set_visible(False)
    return drawn
