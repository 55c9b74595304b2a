"""A comparison model after TranSiGen: two variational autoencoders, and the drug's way from one latent to the other."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchcell.drug_response.datamodule import ResponseBatch
from torchcell.drug_response.models.base import DenseEncoder, InputOptions, ResponseModel
from torchcell.drug_response.spec import DrugResponseSpec
from torchcell.io.errors import InputError


class _Normal(NamedTuple):
    mean: Tensor
    log_variance: Tensor

    def draw(self, at_random: bool) -> Tensor:
        spread = (0.5 * self.log_variance).exp()
        return self.mean + spread * torch.randn_like(spread) if at_random else self.mean

    def divergence(self, other: _Normal | None = None) -> Tensor:
        """KL to ``other``, by default the standard normal; mean over the batch, sum over the latent."""
        mean, log_variance = other or (torch.zeros_like(self.mean), torch.zeros_like(self.log_variance))
        ratio = (self.log_variance - log_variance).exp() + (self.mean - mean).square() / log_variance.exp()
        return 0.5 * (ratio - 1 - self.log_variance + log_variance).sum(1).mean()


class LatentShift(ResponseModel):
    r"""z_1 ~ q(z | basal), z_2 ~ p(z | z_1, molecule, line, dose), change = decode(z_2).

    After TranSiGen (Tong et al., Nature Communications 2024): in training a second encoder reads the measured change,
    q(z_2 | change), which is decoded too and drawn together with p by their divergence.

    Terms besides those of ``ResponseModel``: ``basal`` and ``change``, squared errors of both reconstructions in
    standard deviations; ``kl`` of q(z_1) and q(z_2) to the standard normal; ``match``, KL of q(z_2) to p(z_2).

    Args:
        spec: Of drug response.
        inputs: What is read of a sample; its ``basal`` must be ``change``.
        latent: Width of z_1 and z_2.
        hidden: Width of the hidden layers.
        dropout: Share of their units dropped in training.
        training: ``optimizer``, ``scheduler`` and ``loss_weights``, see ``Model``.
    """

    def __init__(
        self,
        spec: DrugResponseSpec,
        *,
        inputs: InputOptions | None = None,
        latent: int = 64,
        hidden: int = 256,
        dropout: float | int = 0.1,
        **training: Any,
    ) -> None:
        super().__init__(spec, inputs, "change", **training)
        if self.inputs.basal is None or self.inputs.raw:
            raise InputError("LatentShift starts from the basal profile's change: keep inputs.basal=change")
        width, n_genes = self.inputs.features, len(spec.genes)
        part = self.inputs.line_embedding.embedding_dim
        self.first = nn.Linear(part, 2 * latent)
        self.shift = nn.Sequential(
            nn.Linear(latent + width - part, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, 2 * latent),
        )  # fmt: skip
        self.changed = nn.Sequential(DenseEncoder(n_genes, hidden, part, dropout), nn.Linear(part, 2 * latent))
        self.decode_basal = _decoder(latent, hidden, n_genes, dropout)
        self.decode_change = _decoder(latent, hidden, n_genes, dropout)
        self._step: tuple[Tensor, _Normal, _Normal] | None = None

    def forward(self, batch: ResponseBatch) -> Float[Tensor, "B G"]:
        """Treated expression in the target's units; at the means of the latents in evaluation."""
        z_BZ, q_1, p_2 = self._latents(batch)
        self._step = (z_BZ, q_1, p_2) if self.training else None
        return self.express(self.decode_change(p_2.draw(self.training)), batch)

    def losses(self, batch: ResponseBatch, prediction: Tensor) -> dict[str, Tensor]:
        """Terms of the prediction, of both reconstructions and of the latents."""
        (z_BZ, q_1, p_2), self._step = self._step or self._latents(batch), None
        basal_BG = (batch.basal - self.inputs.mean_line_G) / self.inputs.scale_G
        change_BG = (batch.target - batch.input_control - self.mean_G) / self.scale
        measured_BG = ~torch.isnan(change_BG)
        change_BG = torch.where(measured_BG, change_BG, 0.0)
        q_2 = _normal(self.changed(change_BG))
        again_BG = self.decode_change(q_2.draw(self.training))
        return super().losses(batch, prediction) | {
            "basal": (self.decode_basal(z_BZ) - basal_BG).square().mean(),
            "change": ((again_BG - change_BG).square() * measured_BG).sum() / measured_BG.sum().clamp(min=1),
            "kl": (q_1.divergence() + q_2.divergence()) / 2,
            "match": q_2.divergence(p_2),
        }

    def set_embeddings(self, batch: ResponseBatch) -> dict[str, Tensor]:
        """``z_2``: the mean of the perturbed latent [B, Z]."""
        return {"z_2": self._latents(batch)[2].mean}

    def _latents(self, batch: ResponseBatch) -> tuple[Tensor, _Normal, _Normal]:
        """z_1 as it is drawn, q(z_1) and p(z_2)."""
        part = self.inputs.parts(batch)
        q_1 = _normal(self.first(part.pop("basal")))
        z_BZ = q_1.draw(self.training)
        return z_BZ, q_1, _normal(self.shift(torch.cat([z_BZ, *part.values()], 1)))


def _normal(both: Tensor) -> _Normal:
    mean, log_variance = both.chunk(2, 1)
    return _Normal(mean, log_variance.clamp(-8, 4))


def _decoder(latent: int, hidden: int, n_genes: int, dropout: float | int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(latent, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, n_genes)
    )
