"""Metrics that accumulate over the batches of an epoch while a model trains; synchronised under DDP.

They steer training. The model's test goes through ``torchcell.metrics.evaluate``, never through these.
Missing targets are masked by arithmetic, so an update never waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc, binary_average_precision
from torchmetrics.utilities.data import dim_zero_cat

from torchcell.data.errors import InputError
from torchcell.metrics.scalar import FLAT

POOLED = "expression"
"""The name under which all genes of an expression task are scored together."""


class StreamingCorrelation(Metric):
    """``<output>/Pearson`` and ``<output>/MSE`` per output, or over all outputs pooled under one name.

    Means and centred sums are merged batch by batch and process by process (Chan, Golub and LeVeque 1983),
    which keeps float32 exact enough whatever the phenotype's mean.

    Args:
        outputs: Names of the T outputs; one name and ``pooled`` takes all columns together.
        pooled: Score all columns as one vector.
    """

    full_state_update = False
    moments: Tensor

    def __init__(self, outputs: Sequence[str], pooled: bool = False) -> None:
        super().__init__()
        self.outputs, self.pooled = tuple(outputs), pooled
        # Rows: count, mean prediction, mean target, then the three centred sums of products.
        self.add_state("moments", torch.zeros(6, len(self.outputs)), dist_reduce_fx=_merge_all)

    def update(self, prediction_BT: Float[Tensor, "B T"], target_BT: Float[Tensor, "B T"]) -> None:
        """Add a batch, both in the target's units [B, T]; a target of NaN is missing."""
        x, y = prediction_BT.detach().float(), target_BT.float()
        if self.pooled:
            x, y = x.reshape(-1, 1), y.reshape(-1, 1)
        measured = ~torch.isnan(y)
        x, y = torch.where(measured, x, 0.0), torch.where(measured, y, 0.0)
        n = measured.sum(0).float()
        mean_x, mean_y = x.sum(0) / n.clamp(min=1), y.sum(0) / n.clamp(min=1)
        x, y = (x - mean_x) * measured, (y - mean_y) * measured
        batch = torch.stack([n, mean_x, mean_y, (x * x).sum(0), (y * y).sum(0), (x * y).sum(0)])
        self.moments = _merge(self.moments, batch)

    def compute(self) -> dict[str, Tensor]:
        """Values by name since the last ``reset``; NaN for a constant, or with nothing measured."""
        n, mean_x, mean_y, xx, yy, xy = self.moments
        flat = (xx <= n * (FLAT * mean_x) ** 2) | (yy <= n * (FLAT * mean_y) ** 2)
        pearson = torch.where(flat, torch.nan, xy / (xx.sqrt() * yy.sqrt())).clamp(-1, 1)
        mse = (xx + yy - 2 * xy).clamp(min=0) / n + (mean_x - mean_y) ** 2
        return {
            f"{output}/{name}": value[t]
            for t, output in enumerate(self.outputs)
            for name, value in (("Pearson", pearson), ("MSE", mse))
        }


class StreamingRanking(Metric):
    """``<output>/AUROC`` and ``<output>/AP`` per output; keeps all scores of the epoch.

    Args:
        outputs: Names of the T outputs.
    """

    full_state_update = False
    score: list[Tensor]
    label: list[Tensor]

    def __init__(self, outputs: Sequence[str]) -> None:
        super().__init__()
        self.outputs = tuple(outputs)
        self.add_state("score", [], dist_reduce_fx="cat")
        self.add_state("label", [], dist_reduce_fx="cat")

    def update(self, prediction_BT: Float[Tensor, "B T"], target_BT: Float[Tensor, "B T"]) -> None:
        """Add a batch of probabilities and labels, 0, 1 or NaN for missing [B, T]."""
        self.score.append(prediction_BT.detach().float())
        self.label.append(target_BT.float())

    def compute(self) -> dict[str, Tensor]:
        """Values by name since the last ``reset``; NaN with one class, or with nothing measured."""
        values: dict[str, Tensor] = {}
        score, label = (
            dim_zero_cat(x) if len(x) else torch.zeros(0, len(self.outputs)) for x in (self.score, self.label)
        )
        for t, output in enumerate(self.outputs):
            held = ~torch.isnan(label[:, t])
            s, y = score[held, t], label[held, t].long()
            both = 0 < int(y.sum()) < len(y)
            nan = torch.tensor(torch.nan, device=s.device)
            values[f"{output}/AUROC"] = binary_auroc(s, y) if both else nan
            values[f"{output}/AP"] = binary_average_precision(s, y) if both else nan
        return values


def streaming_metrics(task: str, outputs: Sequence[str]) -> StreamingCorrelation | StreamingRanking:
    """What to watch while ``task`` is trained on ``outputs``.

    Args:
        task: ``regression`` (Pearson, MSE), ``binary`` (AUROC, AP; predictions are probabilities) or
            ``expression`` (Pearson and MSE over all genes pooled, under ``expression``).
        outputs: Names of the outputs, in the order of the columns.
    """
    if task == "regression":
        return StreamingCorrelation(outputs)
    if task == "binary":
        return StreamingRanking(outputs)
    if task == "expression":
        return StreamingCorrelation((POOLED,), pooled=True)
    raise InputError(f"no streaming metrics for the task {task!r}; use regression, binary or expression")


def _merge(a: Tensor, b: Tensor) -> Tensor:
    """Moments [6, T] of two disjoint sets as those of their union."""
    n = a[0] + b[0]
    share = b[0] / n.clamp(min=1)
    shift_x, shift_y = b[1] - a[1], b[2] - a[2]
    between = a[0] * share * torch.stack([shift_x * shift_x, shift_y * shift_y, shift_x * shift_y])
    means = torch.stack([a[1] + shift_x * share, a[2] + shift_y * share])
    return torch.cat([n[None], means, a[3:] + b[3:] + between])


def _merge_all(stacked: Tensor) -> Tensor:
    """Moments of all processes [P, 6, T] as one [6, T]."""
    return reduce(_merge, stacked.unbind(0))
