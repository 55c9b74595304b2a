"""``CheMoE``: a mixture of experts over molecule, dose and control expression."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcell.core.model import LossWeights
from torchcell.drug_response.datamodule import ResponseBatch
from torchcell.drug_response.models.base import MoleculeGraphEncoder, ResponseInputs, ResponseModel
from torchcell.drug_response.models.chemoe.experts import (
    CHOICES,
    DOSE_BINS,
    ExpertUsage,
    MixtureOfExperts,
    Router,
    Routing,
    expert_section,
)
from torchcell.drug_response.models.mlp import GeneExpert
from torchcell.drug_response.spec import DrugResponseSpec
from torchcell.io.errors import InputError
from torchcell.nn.ragged import pad

if TYPE_CHECKING:
    import pandas as pd

    from torchcell.report.sections import Section


class GeneAtomAttention(nn.Module):
    r"""y_bg = sum over heads n of s_bn u_gn . (sum over atoms a of alpha_gna v_an), alpha the softmax of q_gn . k_an.

    As the attention of genes over molecules in MultiDCP (Wu, Liu and Xie, PLoS Comput. Biol. 2022), with a product for
    the read-out, so that nothing of B x G x D is kept but one attention a molecule; s_b, linear in the sample's
    vector, lets line and dose turn a head up, down or round.

    Args:
        width: Width W of an atom.
        gene_width: Width D of a gene.
        features: Width H of a sample.
        heads: Attention heads; W must be a multiple.

    Raises:
        ValueError: A width that does not divide into the heads.

    Shapes:
        x_AW [A, W], ptr_P [U + 1], gamma_GD [G, D], h_BH [B, H], place_B int64 [B] -> [B, G]; place_B names each
        sample's molecule among U, and one without atoms gives 0.
    """

    def __init__(self, width: int, gene_width: int, features: int, heads: int = 4) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{width} numbers an atom do not divide into {heads} heads")
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.query_read = nn.Linear(gene_width, 2 * width, bias=False)
        self.strength = nn.Linear(features, heads)

    def forward(
        self,
        x_AW: Float[Tensor, "A W"],
        ptr_P: Int[Tensor, " P"],
        gamma_GD: Float[Tensor, "G D"],
        h_BH: Float[Tensor, "B H"],
        place_B: Int[Tensor, " B"],
    ) -> Float[Tensor, "B G"]:
        """What the atoms add to each sample's genes."""
        index_US, mask_US = pad(ptr_P)
        strength_BN = self.strength(h_BH)
        if not mask_US.shape[1]:
            return 0.0 * (strength_BN.sum(1, keepdim=True) + self.query_read(gamma_GD).sum(1))
        key_A, value_A = self.key_value(self.norm(x_AW)).unflatten(1, (2 * self.heads, -1)).chunk(2, 1)
        query_G, read_G = self.query_read(gamma_GD).unflatten(1, (2 * self.heads, -1)).chunk(2, 1)
        keys, values = (each[index_US].transpose(1, 2) for each in (key_A, value_A))
        queries = query_G.transpose(0, 1).expand(len(index_US), -1, -1, -1)
        # A molecule without atoms looks at one that is not its own, and counts for nothing.
        some_U = mask_US[:, 0]
        seen_US = torch.where(some_U[:, None], mask_US, torch.ones_like(mask_US))[:, None, None]
        found_UNGC = nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=seen_US)
        read_NGC = read_G.transpose(0, 1)
        said_UNG = (found_UNGC * read_NGC).sum(-1) / read_NGC.shape[-1] ** 0.5 * some_U[:, None, None]
        return torch.einsum("bn,bng->bg", strength_BN, said_UNG[place_B])


class CheMoE(ResponseModel):
    r"""y_bg = sum over k of E experts of w_e(h_b) f_e([h_b, gamma_g]), h the encoded inputs, gamma_g a vector a gene.

    Terms besides those of ``ResponseModel``: ``balance`` and ``z`` of the router, 0 for a rule that learns nothing.

    Args:
        spec: Of the task ``response``.
        inputs: Partial of ``ResponseInputs``.
        head: See ``ResponseModel``.
        experts: E.
        top_k: k, experts that read a sample.
        router: ``top_k``, ``dense``, ``uniform``, or ``hash`` of the drug's name.
        router_start_sd: See ``Router.start_sd``.
        balance_rate: See ``Router.bias_rate``.
        atom_heads: Heads with which genes look at the molecule's atoms, added to the mixture; 0: they don't. Needs
            ``inputs.molecules=graph``.
        expert_hidden: Widths of an expert's two hidden layers.
        expert_dropout: Share of its first layers' units dropped in training.
        expert_product: Width of the hidden layer of a product that an expert adds to its MLP, see ``GeneExpert``; 0:
            none, as published.
        gene_width: Width D of gamma.
        gene_sd: Of a fresh table's entries; none: 1 / sqrt(D).
        gene_gain: gamma is this times the table's row, so it moves so many times faster than weights; none: sqrt(D),
            which gives its entries the size of h's.
        decay: Which parameters decay: ``weights``, or ``all`` as published, which drives gamma to 0.
        optimizer: See ``Model``.
        scheduler: See ``Model``.
        loss_weights: See ``Model``.

    Raises:
        InputError: An unknown choice, or more experts a sample than there are.
    """

    key_D: Tensor

    def __init__(
        self,
        spec: DrugResponseSpec,
        *,
        inputs: Callable[..., ResponseInputs] | None = None,
        head: str = "change",
        experts: int = 4,
        top_k: int = 2,
        router: str = "top_k",
        router_start_sd: float | int | None = 0.01,
        balance_rate: float | int = 0.0,
        atom_heads: int = 0,
        expert_hidden: Sequence[int] = (256, 128),
        expert_dropout: float | int = 0.0,
        expert_product: int = 0,
        gene_width: int = 128,
        gene_sd: float | int | None = None,
        gene_gain: float | int | None = None,
        decay: str = "weights",
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        loss_weights: LossWeights | None = None,
    ) -> None:
        super().__init__(spec, inputs, head, optimizer, scheduler, loss_weights)
        if router not in CHOICES or not 1 <= top_k <= experts:
            raise InputError(
                f"model.router={router!r} is one of {CHOICES}, and model.top_k={top_k} lies between 1 and "
                f"model.experts={experts}"
            )
        if decay not in ("weights", "all") or len(expert_hidden) != 2:
            raise InputError(
                f"model.decay={decay!r} is weights or all, and model.expert_hidden={list(expert_hidden)} two widths"
            )
        self.decay = decay
        self.gain = gene_width**0.5 if gene_gain is None else gene_gain
        self.gene_embedding = nn.Embedding(len(spec.genes), gene_width)
        nn.init.normal_(self.gene_embedding.weight, std=gene_width**-0.5 if gene_sd is None else gene_sd)
        width, hidden = self.inputs.features, (expert_hidden[0], expert_hidden[1])
        self.mixture = MixtureOfExperts(
            Router(width, experts, top_k, router, start_sd=router_start_sd, bias_rate=balance_rate),
            [GeneExpert(width, gene_width, hidden, expert_dropout, product=expert_product) for _ in range(experts)],
        )
        self.atoms: GeneAtomAttention | None = None
        if atom_heads:
            if not isinstance(self.inputs.molecule, MoleculeGraphEncoder):
                raise InputError(f"model.atom_heads={atom_heads} look at atoms: set model.inputs.molecules=graph")
            part = self.inputs.line_embedding.embedding_dim
            self.atoms = GeneAtomAttention(part, gene_width, width, atom_heads)
        # By name, so that a drug keeps its experts whatever table it stands in.
        keys = [zlib.crc32(name.encode()) for name in spec.molecules.id]
        self.register_buffer("key_D", torch.tensor(keys, dtype=torch.int64), persistent=False)
        self.usage = ExpertUsage(experts, len(spec.lines))
        self._routing: Routing | None = None

    def genes(self) -> Float[Tensor, "G D"]:
        """gamma of all genes [G, D]."""
        return self.gain * self.gene_embedding.weight

    def network_output(self, h_BH: Float[Tensor, "B H"], batch: ResponseBatch) -> Float[Tensor, "B G"]:
        """The mixture of the experts, and what genes see of the atoms."""
        gamma_GD = self.genes()
        output_BG, self._routing = self.mixture(h_BH, gamma_GD, self.key_D[batch.drug])
        if self.atoms is not None:
            assert isinstance(self.inputs.molecule, MoleculeGraphEncoder)
            drug_U, place_B = torch.unique(batch.drug, return_inverse=True)
            atom_AW, ptr_P = self.inputs.molecule.atoms(drug_U)
            output_BG = output_BG + self.atoms(atom_AW, ptr_P, gamma_GD, h_BH, place_B)
        return output_BG

    def losses(self, batch: ResponseBatch, prediction: Tensor) -> dict[str, Tensor]:
        """The terms, from the routing that gave the prediction; usage is counted on the way."""
        routing, self._routing = self._routing, None
        if routing is None:
            routing = self.mixture.router(self.inputs(batch), self.key_D[batch.drug])
        if self.training:
            self.usage.add(routing, batch.line, batch.log_dose)
        return super().losses(batch, prediction) | {"balance": routing.balance(), "z": routing.logit_size()}

    def gene_embeddings(self) -> dict[str, Tensor]:
        """``genes``: gamma [G, D]."""
        return {"genes": self.genes()}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """As for all models, or one group whose every parameter decays."""
        return [{"params": list(self.parameters())}] if self.decay == "all" else super().parameter_groups()

    def collapses(self) -> list[str]:
        """A mixture of which one expert does all."""
        return list(filter(None, [self.usage.collapse()]))

    def epoch_state(self) -> dict[str, Any]:
        """And how much each expert was used so far."""
        return super().epoch_state() | {"usage": self.usage.running}

    def load_epoch_state(self, state: Mapping[str, Any]) -> None:
        """Go on from that use too."""
        super().load_epoch_state(state)
        self.usage.running = state["usage"]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Even the experts' loads out, those of all processes together."""
        self.mixture.router.even_out(self._add_up)

    def on_validation_epoch_start(self) -> None:
        """Before a checkpoint of this epoch is written."""
        self._close_usage()

    def on_train_epoch_end(self) -> None:
        """Log how much each expert was used over the whole epoch."""
        self._close_usage()
        self.log_dict({f"train/usage/{name}": value for name, value in self.usage.measures().items()})
        super().on_train_epoch_end()

    def report_sections(self, history: pd.DataFrame | None) -> list[Section]:
        """Heat maps of the experts' use in the epoch of the weights, by line and by dose."""
        usage, lines = self.usage, self.spec.lines
        line_EL, dose_EQ = (counts.cpu().numpy() for counts in (usage.line_EL, usage.dose_EQ))
        return [expert_section(line_EL, dose_EQ, lines, DOSE_BINS, float(usage.entropy), usage.dead)]

    def _close_usage(self) -> None:
        self.usage.close(self._add_up)

    def _add_up(self, counts: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(counts, reduce_op="sum")
