"""One network per drug response: a plain MLP, and the product of gene and treatment vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from torchcell.drug_response.datamodule import ResponseBatch
from torchcell.drug_response.models.base import GeneOptions, InputOptions, ResponseModel
from torchcell.drug_response.models.chemoe.model import GeneExpert
from torchcell.drug_response.spec import DrugResponseSpec
from torchcell.io.errors import InputError

DECODERS = ("pairs", "product")


class ResponseMLP(ResponseModel):
    """y_bg = f([h_b, gamma_g]), or <f(h_b), gamma_g> with ``decoder=product``.

    .. code-block:: text

        basal, molecule, cell line, dose and time ---> h [B, H] --+
                                                                   +---> f ---> output [B, G] ---> ResponseModel's head
        gene table ---> gamma [G, D] -----------------------------+

    Args:
        spec: Of drug response.
        inputs: What is read of a sample.
        head: See ``ResponseModel``.
        decoder: ``pairs``: an MLP on each pair of sample and gene, as CheMoE's experts; ``product``: a product of
            rank D, hundreds of times cheaper.
        hidden: Widths of the hidden layers; (362, 181) cost as much a pair as two of CheMoE's experts.
        dropout: Share of the first layer's units dropped in training.
        genes: The genes' vectors.
        training: ``optimizer``, ``scheduler`` and ``loss_weights``, see ``Model``.

    Raises:
        InputError: An unknown decoder, or other than two widths.
    """

    def __init__(
        self,
        spec: DrugResponseSpec,
        *,
        inputs: InputOptions | None = None,
        head: str = "change",
        decoder: str = "pairs",
        hidden: Sequence[int] = (362, 181),
        dropout: float | int = 0.0,
        genes: GeneOptions | None = None,
        **training: Any,
    ) -> None:
        super().__init__(spec, inputs, head, **training)
        if decoder not in DECODERS or len(hidden) != 2:
            raise InputError(
                f"model.decoder={decoder!r} is one of {', '.join(DECODERS)}, and model.hidden={list(hidden)} two widths"
            )
        genes = genes or GeneOptions()
        self.gain, self.gene_embedding = genes.factor, genes.table(len(spec.genes))
        self.pairs: GeneExpert | None = None
        self.layers: nn.Sequential | None = None
        if decoder == "pairs":
            self.pairs = GeneExpert(self.inputs.features, genes.width, (hidden[0], hidden[1]), dropout)
        else:
            self.layers = nn.Sequential(
                nn.Linear(self.inputs.features, hidden[0]), nn.LayerNorm(hidden[0]), nn.ReLU(), nn.Dropout(dropout),
                nn.Linear(hidden[0], genes.width),
            )  # fmt: skip

    def genes(self) -> Float[Tensor, "G D"]:
        """gamma of all genes [G, D]."""
        return self.gain * self.gene_embedding.weight

    def network_output(self, h_BH: Float[Tensor, "B H"], batch: ResponseBatch) -> Float[Tensor, "B G"]:
        """One number for each sample and gene."""
        if self.pairs is not None:
            return self.pairs(h_BH, self.genes())
        assert self.layers is not None
        gamma_GD = self.genes()
        return self.layers(h_BH) @ gamma_GD.T / gamma_GD.shape[1] ** 0.5

    def gene_embeddings(self) -> dict[str, Tensor]:
        """``genes``: gamma [G, D]."""
        return {"genes": self.genes()}
