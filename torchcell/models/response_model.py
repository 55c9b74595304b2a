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

HEADS = ("change", "level")
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
"""Of a reading, to choose from."""
PLATE_START = 2.2
"""Log-odds of q before training, a q of .9: what fits wells of the same plate, and farther than so few steps reach."""


class ResponseModel(Model):
    r"""A subclass gives ``read``, a number for each sample and gene; the head makes expression of it.

    .. math::
        u = x + p_g (\bar x_{line} - x) + m_g, \quad \hat y = u + q_g (c - u) + a \, s_g \, \mathrm{read}

    with the control x, the mean control of the line, mean m and standard deviation s of the training changes, and the
    mean c of the other training samples on the plate. The learned p says how much of a control's departure from its
    line is noise, which both y - x and yhat - x would else share; the learned q how much a plate tells that its
    controls do not. For an unknown line p = 0, without a centre q = 0. What a network reads of training wells
    is partly their noise, so that it says too much of others: a is 1 in training, elsewhere that of ``SHARES`` with
    which changes on the validation part correlate best, chosen after each pass over it as a ridge's penalty is.
    With ``head=level`` the reading is the prediction, as published.

    Terms: ``phenotype``, the residual in units of s (``level``: squared, in expression's own units); ``correlation``
    and ``plate``, 1 - Pearson over genes of the change from the control and from the plate's centre.

    Args:
        spec: Of the task ``response``.
        inputs: Partial of ``ResponseInputs``; none takes its defaults.
        head: ``change`` or ``level``.
        optimizer: See ``Model``.
        scheduler: See ``Model``.
        loss_weights: See ``Model``.
    """

    mean_G: Tensor
    sd_G: Tensor
    line_control_LG: Tensor
    share: Tensor
    score_K: Tensor

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
            raise InputError(f"model.head={head!r}: choose change or level")
        self.head = head
        self.inputs = (inputs or ResponseInputs)(spec)
        for name, value in (("mean_G", "change_center"), ("sd_G", "change_scale"), ("line_control_LG", "line_control")):
            self.register_buffer(name, spec.extras[value], persistent=False)
        self.register_buffer("share", torch.ones(()))
        self.register_buffer("score_K", torch.zeros(len(SHARES)), persistent=False)
        start = torch.zeros(len(spec.genes))
        self.pull = nn.Parameter(start) if head == "change" else None
        self.plate_pull = nn.Parameter(start + PLATE_START) if head == "change" else None

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
        off_BG = self.line_control_LG[batch.line.clamp(min=0)] - batch.control
        start_BG = batch.control + self.pull.sigmoid() * off_BG * (batch.line >= 0)[:, None] + self.mean_G
        plate_BG = torch.nan_to_num(batch.centre - start_BG, nan=0.0)
        start_BG = start_BG + self.plate_pull.sigmoid() * plate_BG
        return start_BG + (1 if self.training else self.share) * self.sd_G * read_BG

    def on_validation_epoch_end(self) -> None:
        """Choose ``share``, by which the next pass over the validation part goes, and every checkpoint."""
        score_K = self.trainer.strategy.reduce(self.score_K.clone(), reduce_op="sum")
        self.score_K.zero_()
        if self.head == "change" and not self.trainer.sanity_checking:
            self.share.fill_(SHARES[int(score_K.argmax())])
            self.log("val/share", self.share)
        super().on_validation_epoch_end()

    def _observe(self, stage: str, batch: ResponseBatch, prediction: Tensor) -> None:
        super()._observe(stage, batch, prediction)
        if stage == "val" and self.head == "change":
            self._score_shares(batch, prediction.detach())

    @torch.no_grad()
    def _score_shares(self, batch: ResponseBatch, prediction: Tensor) -> None:
        """Add, for each share, the correlation over genes of true and predicted change of the batch's samples."""
        start_BG = self.express(torch.zeros_like(prediction), batch)
        read_BG = (prediction - start_BG) / self.share
        distance_K = [profile_distance(start_BG + a * read_BG, batch.target, batch.control) for a in SHARES]
        self.score_K += len(batch) * (1 - torch.stack(distance_K))

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
            "plate": profile_distance(prediction, batch.target, batch.centre),
        }

    def set_embeddings(self, batch: ResponseBatch) -> dict[str, Tensor]:
        """``inputs``: the encoded basal profile, molecule, line, dose and time [B, H]."""
        return {"inputs": self.inputs(batch)}
