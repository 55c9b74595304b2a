"""Metrics that accumulate over the batches of an epoch while a model trains; synchronized under DDP.

They are for training only. Test scores come from ``torchcell.evaluation.evaluate``. Missing targets are masked by
arithmetic, so that an update never waits for the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc, binary_average_precision
from torchmetrics.utilities.data import dim_zero_cat

from torchcell.evaluation.metrics import FLAT

FLAT_PROFILE = 1e-6
"""Change over level below which a float32 profile has not changed."""
POOLED = "expression"
"""Output name of the scores over all genes of an expression task."""


class ScoreName(str):
    """The text ``<output>/<metric>`` with its two parts, so that ``val/score`` can choose by the metric.

    Attributes:
        output: Name of the output; it may contain a slash.
        metric: Name of the metric.
    """

    output: str
    metric: str

    def __new__(cls, output: str, metric: str) -> ScoreName:
        """The name of one metric of one output."""
        name = super().__new__(cls, f"{output}/{metric}")
        name.output, name.metric = output, metric
        return name


class StreamingCorrelation(Metric):
    """``<output>/Pearson`` and ``<output>/MSE`` per output, or over all outputs pooled under one name.

    Means and centered sums are merged batch by batch and process by process (Chan, Golub and LeVeque 1983),
    so that float32 is accurate enough whatever the mean of the phenotype.

    Args:
        outputs: Names of the T outputs; one name and ``pooled`` takes all columns together.
        pooled: Score all columns as one vector.
    """

    full_state_update = False
    moments: Tensor

    def __init__(self, outputs: Sequence[str], pooled: bool = False) -> None:
        super().__init__()
        self.outputs, self.pooled = tuple(outputs), pooled
        # Rows: count, mean prediction, mean target, then the three centered sums of products.
        self.add_state("moments", torch.zeros(6, len(self.outputs)), dist_reduce_fx=_merge_all)

    def update(
        self,
        prediction_BT: Float[Tensor, "B T"],
        target_BT: Float[Tensor, "B T"],
        input_controls: Mapping[str, Tensor] | None = None,
        eval_controls: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Add a batch, both in the target's units [B, T]; a target of NaN is missing; controls are not used."""
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
            ScoreName(output, name): value[t]
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

    def update(
        self,
        prediction_BT: Float[Tensor, "B T"],
        target_BT: Float[Tensor, "B T"],
        input_controls: Mapping[str, Tensor] | None = None,
        eval_controls: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Add a batch of probabilities and labels, 0, 1 or NaN for missing [B, T]; controls are not used."""
        self.score.append(prediction_BT.detach().float())
        self.label.append(target_BT.float())

    def compute(self) -> dict[str, Tensor]:
        """Values by name since the last ``reset``; NaN with one class, or with nothing measured."""
        values: dict[str, Tensor] = {}
        score, label = (
            dim_zero_cat(x) if len(x) else torch.zeros(0, len(self.outputs)) for x in (self.score, self.label)
        )
        for t, output in enumerate(self.outputs):
            measured = ~torch.isnan(label[:, t])
            s, y = score[measured, t], label[measured, t].long()
            both_classes = 0 < int(y.sum()) < len(y)
            nan = torch.tensor(torch.nan, device=s.device)
            values[ScoreName(output, "AUROC")] = binary_auroc(s, y) if both_classes else nan
            values[ScoreName(output, "AP")] = binary_average_precision(s, y) if both_classes else nan
        return values


class StreamingProfile(Metric):
    """``<control>/Pearson`` over genes of true and predicted change from each control, mean over samples; and
    ``expression/MSE``.

    Args:
        controls: Names of controls that changes are taken from, keys of ``Batch.input_controls``.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, controls: Sequence[str]) -> None:
        super().__init__()
        self.controls = tuple(controls)
        for name in ("total", "count"):
            self.add_state(name, torch.zeros(1 + len(self.controls), dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self,
        prediction_BT: Float[Tensor, "B T"],
        target_BT: Float[Tensor, "B T"],
        input_controls: Mapping[str, Tensor],
        eval_controls: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Add a batch in the target's units [B, T]; samples whose change is constant do not count.

        True changes are taken from ``eval_controls``, by default the same. With the same control cells the noise of
        the controls alone makes true and predicted changes correlate.
        """
        eval_controls = input_controls if eval_controls is None else eval_controls
        prediction, target = prediction_BT.detach().float(), target_BT.float()
        error = (prediction - target).square()
        measured = ~torch.isnan(error)
        total, count = [torch.where(measured, error, 0.0).sum()], [measured.sum()]
        for name in self.controls:
            x, y = target - eval_controls[name], prediction - input_controls[name]
            measured = ~(torch.isnan(x) | torch.isnan(y))
            n = measured.sum(1, keepdim=True).clamp(min=1)
            x, y = torch.where(measured, x, 0.0), torch.where(measured, y, 0.0)
            x, y = (x - x.sum(1, keepdim=True) / n) * measured, (y - y.sum(1, keepdim=True) / n) * measured
            size = torch.where(measured, target.abs(), 0.0).amax(1) * n[:, 0].sqrt()
            norm_x, norm_y = x.norm(dim=1), y.norm(dim=1)
            defined = (norm_x > FLAT_PROFILE * size) & (norm_y > FLAT_PROFILE * size)
            value = (x * y).sum(1) / (norm_x * norm_y).clamp(min=1e-30)
            total.append(torch.where(defined, value, 0.0).sum())
            count.append(defined.sum())
        self.total = self.total + torch.stack(total).double()
        self.count = self.count + torch.stack(count).double()

    def compute(self) -> dict[str, Tensor]:
        """Values by name since the last ``reset``; NaN where nothing was defined."""
        value = torch.where(self.count > 0, self.total / self.count, torch.nan).float()
        values: dict[str, Tensor] = {ScoreName(name, "Pearson"): value[1 + i] for i, name in enumerate(self.controls)}
        return values | {ScoreName(POOLED, "MSE"): value[0]}


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
