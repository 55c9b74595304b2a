"""One network per drug response: a plain MLP, and the product of gene and treatment vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from torchcell.core.model import LossWeights
from torchcell.drug_response.datamodule import ResponseBatch
from torchcell.drug_response.models.base import ResponseInputs, ResponseModel
from torchcell.drug_response.spec import DrugResponseSpec
from torchcell.io.errors import InputError

KEPT = 65_536
"""Pairs of sample and gene that are taken at once and kept; of more, none is kept and backward computes them again."""
CHUNK = 16_384
"""Pairs that are then taken at once, few enough for a processor's cache."""


class GeneExpert(nn.Module):
    r"""y_bg = f([h_b, gamma_g]) with f = Linear, LayerNorm, ReLU, Linear, LayerNorm, ReLU, Linear to one number.

    With ``product`` it is f([h_b, gamma_g]) + <g(h_b), gamma_g> / sqrt(D), g = Linear, LayerNorm, ReLU, dropout,
    Linear: a narrow f tells few genes apart, the product each by its own vector, and costs B + G rows.

    The first layer falls apart, W [h; gamma] + c = W_h h + (W_gamma gamma + c), so it costs B + G rows, not B x G. The
    later layers run on blocks of pairs; where there are several, the backward pass computes each block again, so that
    memory does not grow with B x G.

    Args:
        features: Width H of a sample.
        gene_features: Width D of a gene.
        hidden: Widths of the two hidden layers.
        dropout: Share of the first hidden layers' units dropped in training.
        chunk: Pairs at once; none: ``KEPT`` if that is all, else ``CHUNK``.
        product: Width of g's hidden layer; 0: no product.

    Shapes:
        h_BH [B, H] and gamma_GD [G, D] -> [B, G].
    """

    def __init__(
        self,
        features: int,
        gene_features: int,
        hidden: tuple[int, int] = (256, 128),
        dropout: float | int = 0.0,
        chunk: int | None = None,
        product: int = 0,
    ) -> None:
        super().__init__()
        self.features, self.chunk = features, chunk
        self.first = nn.Linear(features + gene_features, hidden[0])
        self.first_norm = nn.LayerNorm(hidden[0])
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(hidden[0], hidden[1])
        self.second_norm = nn.LayerNorm(hidden[1])
        self.last = nn.Linear(hidden[1], 1)
        self.product: nn.Sequential | None = None
        if product:
            self.product = nn.Sequential(
                nn.Linear(features, product), nn.LayerNorm(product), nn.ReLU(), nn.Dropout(dropout),
                nn.Linear(product, gene_features),
            )  # fmt: skip

    def forward(self, h_BH: Float[Tensor, "B H"], gamma_GD: Float[Tensor, "G D"]) -> Float[Tensor, "B G"]:
        """One value for each sample and gene; [0, G] for no samples, and every weight still takes part."""
        of_sample, of_gene = self.first.weight.split([self.features, self.first.in_features - self.features], 1)
        sample_BK = nn.functional.linear(h_BH, of_sample)
        gene_GK = nn.functional.linear(gamma_GD, of_gene, self.first.bias)
        blocks = list(self._blocks(len(h_BH), len(gamma_GD)))
        again = len(blocks) > 1 and torch.is_grad_enabled()
        rows: dict[int, list[Tensor]] = {}
        for samples, genes in blocks:
            part = sample_BK[samples], gene_GK[genes]
            value = checkpoint(self._pairs, *part, use_reentrant=False) if again else self._pairs(*part)
            rows.setdefault(samples.start, []).append(value)
        output_BG = torch.cat([torch.cat(values, 1) for values in rows.values()])
        if self.product is None:
            return output_BG
        return output_BG + self.product(h_BH) @ gamma_GD.T / gamma_GD.shape[1] ** 0.5

    def _pairs(self, sample_BK: Tensor, gene_GK: Tensor) -> Tensor:
        x_BGK = self.first_norm(sample_BK[:, None] + gene_GK).relu()
        return self.last(self.second_norm(self.second(self.dropout(x_BGK))).relu()).squeeze(-1)

    def _blocks(self, n_samples: int, n_genes: int) -> Iterator[tuple[slice, slice]]:
        """Whole samples together while they fit, else genes of one sample."""
        most = self.chunk or (KEPT if n_samples * n_genes <= KEPT else CHUNK)
        step, width = max(1, most // max(n_genes, 1)), min(n_genes, most)
        for start in range(0, max(n_samples, 1), step):
            for first in range(0, max(n_genes, 1), max(width, 1)):
                yield slice(start, start + step), slice(first, first + width)


class ResponseMLP(ResponseModel):
    """y_bg = f([h_b, gamma_g]), or <f(h_b), gamma_g> with ``read_by=product``.

    Args:
        spec: Of the task ``response``.
        inputs: Partial of ``ResponseInputs``.
        head: See ``ResponseModel``.
        read_by: ``pairs``: an MLP on each pair of sample and gene, as CheMoE's experts; ``product``: a product of
            rank D, hundreds of times cheaper.
        hidden: Widths of the hidden layers; (362, 181) cost as much a pair as two of CheMoE's experts.
        dropout: Share of the first layer's units dropped in training.
        gene_width: Width D of gamma.
        gene_gain: gamma is this times the table's row; none: sqrt(D).
        optimizer: See ``Model``.
        scheduler: See ``Model``.
        loss_weights: See ``Model``.
    """

    def __init__(
        self,
        spec: DrugResponseSpec,
        *,
        inputs: Callable[..., ResponseInputs] | None = None,
        head: str = "change",
        read_by: str = "pairs",
        hidden: Sequence[int] = (362, 181),
        dropout: float | int = 0.0,
        gene_width: int = 128,
        gene_gain: float | int | None = None,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        loss_weights: LossWeights | None = None,
    ) -> None:
        super().__init__(spec, inputs, head, optimizer, scheduler, loss_weights)
        if read_by not in ("pairs", "product") or len(hidden) != 2:
            raise InputError(
                f"model.read_by={read_by!r} is pairs or product, and model.hidden={list(hidden)} two widths"
            )
        self.gain = gene_width**0.5 if gene_gain is None else gene_gain
        self.gene_embedding = nn.Embedding(len(spec.genes), gene_width)
        nn.init.normal_(self.gene_embedding.weight, std=gene_width**-0.5)
        self.pairs: GeneExpert | None = None
        self.layers: nn.Sequential | None = None
        if read_by == "pairs":
            self.pairs = GeneExpert(self.inputs.features, gene_width, (hidden[0], hidden[1]), dropout)
        else:
            self.layers = nn.Sequential(
                nn.Linear(self.inputs.features, hidden[0]), nn.LayerNorm(hidden[0]), nn.ReLU(), nn.Dropout(dropout),
                nn.Linear(hidden[0], gene_width),
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
