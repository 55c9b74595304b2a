"""A comparison model: line, basal profile and drug add up in one latent space, as in CPA."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from torchcell.drug_response.datamodule import ResponseBatch
from torchcell.drug_response.models.base import InputOptions, ResponseModel
from torchcell.drug_response.spec import DrugResponseSpec
from torchcell.io.errors import InputError


class AdditiveLatent(ResponseModel):
    r"""z = z_basal + v_line + a(dose, time) v_molecule, decoded by an MLP; a in (0, 1) by latent dimension.

    After the compositional perturbation autoencoder (Lotfollahi et al., Mol. Syst. Biol. 2023) and its form for
    molecules, chemCPA (Hetzel et al., NeurIPS 2022), without their adversary: a line's basal profile is an input here,
    nothing that a classifier would have to take the drug out of.

    Args:
        spec: Of drug response.
        inputs: What is read of a sample; dose and a basal profile must be.
        head: See ``ResponseModel``.
        hidden: Width of the decoder's hidden layer.
        dropout: Share of its units dropped in training.
        training: ``optimizer``, ``scheduler`` and ``loss_weights``, see ``Model``.
    """

    def __init__(
        self,
        spec: DrugResponseSpec,
        *,
        inputs: InputOptions | None = None,
        head: str = "change",
        hidden: int = 256,
        dropout: float | int = 0.1,
        **training: Any,
    ) -> None:
        super().__init__(spec, inputs, head, **training)
        if self.inputs.basal is None or self.inputs.dose is None:
            raise InputError("AdditiveLatent adds a basal profile and a dosed drug: keep inputs.basal and inputs.dose")
        width = self.inputs.line_embedding.embedding_dim
        self.strength = nn.Linear(width, width)
        self.decoder = nn.Sequential(
            nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, len(spec.genes)),
        )  # fmt: skip

    def latent(self, batch: ResponseBatch) -> Float[Tensor, "B W"]:
        """z of each sample [B, W]."""
        part = self.inputs.parts(batch)
        return part["basal"] + part["line"] + self.strength(part["dose"]).sigmoid() * part["molecule"]

    def forward(self, batch: ResponseBatch) -> Float[Tensor, "B G"]:
        """Treated expression in the target's units."""
        return self.express(self.decoder(self.latent(batch)), batch)

    def set_embeddings(self, batch: ResponseBatch) -> dict[str, Tensor]:
        """``latent``: z [B, W]."""
        return {"latent": self.latent(batch)}
