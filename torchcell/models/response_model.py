"""``ResponseModel``: what all models of drug response share, from the inputs to a prediction in expression's units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchcell.data.errors import InputError
from torchcell.datamodules.response_samples import ResponseBatch
from torchcell.datamodules.spec import Spec
from torchcell.models.base import LossWeights, Model
from torchcell.models.response_inputs import ResponseInputs
from torchcell.nn.log_cosh import log_cosh
from torchcell.nn.profile_correlation import profile_distance
from torchcell.nn.response_process import ResponseProcess, Wells
from torchcell.nn.shares import Shares

HEADS = ("change", "process", "level")
MOST_HELD = 4000
"""Training samples that the Gaussian process holds: a table of their kernel takes 128 MB."""
PLATE_START = 2.2
"""Log-odds of q before training, a q of .9: what fits wells of the same plate, and farther than so few steps reach."""


class ResponseModel(Model):
    r"""A subclass gives ``read``, a number for each sample and gene; the head makes expression of it.

    .. math::
        \hat y = u + b \, d + a \, s_g \, \mathrm{read}, \quad u = x + m_{line} + d_x

    with the control x, the mean change m of its line (of all lines for an unknown one) and the standard deviation s of
    the training changes. With ``head=process`` a Gaussian process tells two things of the rest of the change, see
    ``ResponseProcess``: d, from wells of like drug, structure, dose and line, and d_x, from wells of like controls;
    with ``head=change`` there is neither. So are scored samples predicted, and requests.

    Training samples know the mean c of the other training samples on their plate, as do those that are scored beside
    as ``plate_known``; for them

    .. math::
        u = v + q_g (c - v), \quad v = x + m_{line} + p_g (\bar x_{line} - x)

    The learned p says how much of a control's departure from its line is noise, the learned q how much a plate tells
    that its controls do not. So the network learns what departs from a plate, not what a plate has in common, which it
    could not know of another one. Trained without c, as requests are, it learned to read the controls' noise, worse
    than d_x says it.

    What a network reads of training wells is partly their noise, so that it says too much of others. Training knows no
    d and all of the reading; elsewhere a and b are the ``Shares`` of least squared error, in units of s, on the
    validation part. With ``head=level`` the reading is the prediction, as published.

    Terms: ``phenotype``, the residual in units of s (``level``: squared, in expression's own units); ``correlation``
    and ``plate``, 1 - Pearson over genes of the change from the control and from the plate's center.

    Args:
        spec: Of the task ``response``.
        inputs: Partial of ``ResponseInputs``; none takes its defaults.
        head: ``change``, ``process`` or ``level``.
        optimizer: See ``Model``.
        scheduler: See ``Model``.
        loss_weights: See ``Model``.
    """

    refitted = ("process.",)

    mean_G: Tensor
    sd_G: Tensor
    line_control_LG: Tensor
    line_change_LG: Tensor

    def __init__(
        self,
        spec: Spec,
        inputs: Callable[..., ResponseInputs] | None = None,
        head: str = "change",
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        loss_weights: LossWeights | None = None,
    ) -> None:
        super().__init__(spec, optimizer, scheduler, loss_weights)
        if head not in HEADS:
            raise InputError(f"model.head={head!r}: choose one of {HEADS}")
        self.head = head
        self.inputs = (inputs or ResponseInputs)(spec)
        for name, value in (("mean_G", "change_center"), ("sd_G", "change_scale"), ("line_control_LG", "line_control")):
            self.register_buffer(name, spec.extras[value], persistent=False)
        line_change_LG = spec.extras["line_treated"] - spec.extras["line_control"]
        self.register_buffer("line_change_LG", line_change_LG, persistent=False)
        self.shares = Shares()
        self._reading: tuple[Tensor, Tensor] | None = None
        start = torch.zeros(len(spec.genes))
        self.pull = nn.Parameter(start) if head != "level" else None
        self.plate_pull = nn.Parameter(start + PLATE_START) if head != "level" else None
        self.process: ResponseProcess | None = None
        if head == "process":
            table, known = spec.extras["molecules"], spec.extras["trained"]
            held = {name: values[_some(len(values))] for name, values in known.items()}
            controls = torch.zeros(len(held["drug"]), len(spec.genes))  # they come with ``fit_process``
            self.process = ResponseProcess(table["vectors"], table["known"], _wells(**held, departure=controls))

    def read(self, h_BH: Float[Tensor, "B H"], batch: ResponseBatch) -> Float[Tensor, "B G"]:
        """A number for each sample and gene, in standard deviations of a change."""
        raise NotImplementedError("a model of drug response must define read")

    def forward(self, batch: ResponseBatch) -> Float[Tensor, "B G"]:
        """Treated expression in the target's units."""
        return self.express(self.read(self.inputs(batch), batch), batch)

    def express(self, read_BG: Tensor, batch: ResponseBatch) -> Float[Tensor, "B G"]:
        """What a reading means in the units of expression."""
        if self.pull is None or self.plate_pull is None:
            return read_BG
        line_B, on_line_B1 = batch.line.clamp(min=0), (batch.line >= 0)[:, None]
        alone_BG = batch.control + torch.where(on_line_B1, self.line_change_LG[line_B], self.mean_G)
        known_BG = ~torch.isnan(batch.plate_mean)
        off_BG = torch.where(known_BG & on_line_B1, -self._departure(batch), 0.0)
        beside_BG = alone_BG + self.pull.sigmoid() * off_BG
        beside_BG = beside_BG + self.plate_pull.sigmoid() * torch.where(known_BG, batch.plate_mean - beside_BG, 0.0)
        if self.training:
            return beside_BG + self.sd_G * read_BG
        by_treatment_BG, by_control_BG = self._told(batch)
        self._reading = read_BG.detach(), by_treatment_BG / self.sd_G  # the shares are found with them
        start_BG = torch.where(known_BG, beside_BG, alone_BG + by_control_BG)
        return start_BG + self.shares(self.sd_G * read_BG, by_treatment_BG)

    def _told(self, batch: ResponseBatch) -> tuple[Float[Tensor, "B G"], Float[Tensor, "B G"]]:
        """What like treatments tell of a sample, and what like controls tell; nothing without a process."""
        if self.process is None:
            return torch.zeros_like(batch.control), torch.zeros_like(batch.control)
        return self.process(_wells(batch.drug, batch.line, batch.log_dose, batch.log_time, self._departure(batch)))

    def _departure(self, batch: ResponseBatch) -> Float[Tensor, "B G"]:
        """Of each control from its line's mean; of an unknown line from the first, which nobody reads."""
        return batch.control - self.line_control_LG[batch.line.clamp(min=0)]

    def on_fit_start(self) -> None:
        """Fit the process to the training part; of several processes all take what the first one found."""
        super().on_fit_start()
        if self.process is not None:
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            index = data.split.index("train")
            index = index[_some(len(index)).numpy()]
            self.fit_process(data.packed[torch.from_numpy(index)])
            # Another machine's linear algebra may round in another way, and nothing would bring them together.
            for tensor in (self.process.weight_P, self.process.dual_NG):
                tensor.copy_(self.trainer.strategy.broadcast(tensor))

    def fit_process(self, train: ResponseBatch) -> None:
        """Let the process tell how changes differ from their line's mean; ``train`` holds the spec's, in its order."""
        assert self.process is not None
        self.process.control_NG.copy_(self._departure(train))
        self.process.fit(train.target - train.control - self.line_change_LG[train.line])

    def on_validation_epoch_end(self) -> None:
        """Choose the shares, by which every checkpoint goes, and the next pass over the validation part: the scores of
        this one know those of the pass before, see ``Shares``.
        """
        if self.head != "level" and not self.trainer.sanity_checking:
            chosen = self.shares.choose(lambda sums: self.trainer.strategy.reduce(sums, reduce_op="sum"))
            self.log_dict({f"val/share/{name}": value for name, value in chosen.items()})
        super().on_validation_epoch_end()

    def _observe(self, stage: str, batch: ResponseBatch, prediction: Tensor) -> None:
        super()._observe(stage, batch, prediction)
        if stage == "val" and self.head != "level":
            assert self._reading is not None
            # In standard deviations of a change, and without the units' offset.
            (read_BG, told_BG), self._reading = self._reading, None
            left_BG = (batch.target - prediction.detach()) / self.sd_G + self.shares(read_BG, told_BG)
            self.shares.observe(read_BG, told_BG, left_BG)

    def phenotype_loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean over the measured values: log-cosh of the residual in standard deviations of a change, or its square."""
        measured = ~torch.isnan(target)
        residual = torch.where(measured, prediction - target, 0.0)
        loss = residual.square() if self.head == "level" else log_cosh(residual / self.sd_G)
        return (loss * measured).sum() / measured.sum().clamp(min=1)

    def losses(self, batch: ResponseBatch, prediction: Tensor) -> dict[str, Tensor]:
        """The residual, and where the changes point."""
        return super().losses(batch, prediction) | {
            "correlation": profile_distance(prediction, batch.target, batch.control),
            "plate": profile_distance(prediction, batch.target, batch.eval_center),
        }

    def set_embeddings(self, batch: ResponseBatch) -> dict[str, Tensor]:
        """``inputs``: the encoded basal profile, molecule, line, dose and time [B, H]."""
        return {"inputs": self.inputs(batch)}


def _wells(drug: Tensor, line: Tensor, log_dose: Tensor, log_time: Tensor, departure: Tensor) -> Wells:
    """What a ``ResponseProcess`` reads of samples [n] each, their controls as departures from the line [n, G]."""
    return Wells(drug, line, torch.stack([log_dose, log_time], 1), departure)


def _some(n: int) -> Tensor:
    """Which of n training samples the process holds, sorted: all, or ``MOST_HELD`` drawn at random."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(0))[:MOST_HELD].sort().values
