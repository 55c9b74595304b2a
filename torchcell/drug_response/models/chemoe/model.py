"""``CheMoE``: a mixture of experts over molecule, dose and control expression. All of its forward is in this file but
for the encoders of the inputs and the head, which all models of drug response share (``models.base``).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from torchcell.drug_response.datamodule import ResponseBatch
from torchcell.drug_response.models.base import (
    GeneOptions,
    InputOptions,
    LineOptions,
    MoleculeGraphEncoder,
    ResponseModel,
    check_options,
)
from torchcell.drug_response.models.chemoe.usage import DOSE_BINS, ExpertUsage, expert_section
from torchcell.drug_response.spec import DrugResponseSpec
from torchcell.io.errors import InputError
from torchcell.nn.ragged import pad
from torchcell.nn.sparse import full_precision

if TYPE_CHECKING:
    import pandas as pd

    from torchcell.report.sections import Section

CHOICES = ("top_k", "dense", "uniform", "hash")


@dataclass(frozen=True)
class RouterOptions:
    """Which experts read a sample, see ``Router``.

    Attributes:
        count: Experts E that there are.
        top_k: Experts K that read a sample, for ``top_k`` and ``hash``.
        choice: ``top_k``, ``dense``, ``uniform``, or ``hash`` of the drug's name.
        start_sd: Of the fresh weights of the gate's last layer, 0.01 for near zero; none: torch's own, as published.
        balance_rate: Step of a bias that evens the experts' loads out; 0: no such bias.
    """

    count: int = 4
    top_k: int = 2
    choice: str = "top_k"
    start_sd: float | int | None = 0.01
    balance_rate: float | int = 0.0

    def __post_init__(self) -> None:
        check_options("model.router", self, {"choice": CHOICES}, counts=("count", "top_k"))
        if self.top_k > self.count:
            raise InputError(f"model.router.top_k={self.top_k} is at most model.router.count={self.count}")


@dataclass(frozen=True)
class ExpertOptions:
    """The network of each expert, see ``GeneExpert``.

    Attributes:
        hidden: Widths of the two hidden layers.
        dropout: Share of the first layers' units dropped in training.
        product: Width of the hidden layer of a product that an expert adds to its MLP; 0: none, as published.
    """

    hidden: Sequence[int] = (256, 128)
    dropout: float | int = 0.0
    product: int = 0

    def __post_init__(self) -> None:
        check_options("model.expert", self, rates=("dropout",))
        if len(self.hidden) != 2:
            raise InputError(f"model.expert.hidden={list(self.hidden)} is two widths")


class CheMoE(ResponseModel):
    r"""y_bg = sum over k of E experts of w_e(h_b) f_e([h_b, gamma_g]), h the encoded inputs, gamma_g a vector a gene.

    .. code-block:: text

        batch.basal [B, G], drug, line, log_dose, log_time [B]
                 |
          ResponseInputs ------------> h [B, H] ---> Router: K experts [B, K], weights [B, K]
                                          |               |
          gene table ---> gamma [G, D] ---+---> GeneExpert e of [h_b, gamma_g] -> [b, G], b the rows sent to e
                              |                           |
                              |          MixtureOfExperts: weighted sum over the K experts -> [B, G]
                              |                           |
          atoms [A, W] ---> GeneAtomAttention ---> + -> [B, G]      (atom_heads > 0)
                                                          |
                                    control + mean change of the cell line + sd x output [B, G]   (ResponseModel)

    Terms besides those of ``ResponseModel``: ``balance`` and ``z`` of the router, 0 for a rule that learns nothing.

    Args:
        spec: Of drug response.
        inputs: What is read of a sample.
        head: See ``ResponseModel``.
        router: How many experts there are, and which read a sample.
        expert: Their networks.
        genes: The genes' vectors.
        atom_heads: Heads with which genes look at the molecule's atoms, added to the mixture; 0: they don't. Needs
            ``inputs.molecule.encoder=graph``.
        training: ``optimizer``, ``scheduler`` and ``loss_weights``, see ``Model``.

    Raises:
        InputError: ``atom_heads`` without molecules as graphs.

    Example:
        >>> CheMoE(spec, router=RouterOptions(count=8, top_k=2), expert=ExpertOptions(hidden=(16, 8)))
    """

    key_D: Tensor

    def __init__(
        self,
        spec: DrugResponseSpec,
        *,
        inputs: InputOptions | None = None,
        head: str = "change",
        router: RouterOptions | str | None = None,
        expert: ExpertOptions | None = None,
        genes: GeneOptions | None = None,
        atom_heads: int = 0,
        **training: Any,
    ) -> None:
        super().__init__(spec, inputs, head, **training)
        if isinstance(router, str):
            raise InputError(f"model.router={router} is called model.router.choice={router} since torchcell 0.2")
        router, expert, genes = router or RouterOptions(), expert or ExpertOptions(), genes or GeneOptions()
        self.gain, self.gene_embedding = genes.factor, genes.table(len(spec.genes))
        width, hidden = self.inputs.features, (expert.hidden[0], expert.hidden[1])
        start_sd, bias_rate = router.start_sd, router.balance_rate
        self.mixture = MixtureOfExperts(
            Router(width, router.count, router.top_k, router.choice, start_sd=start_sd, bias_rate=bias_rate),
            [
                GeneExpert(width, genes.width, hidden, expert.dropout, product=expert.product)
                for _ in range(router.count)
            ],
        )
        self.atoms: GeneAtomAttention | None = None
        if atom_heads:
            if not isinstance(self.inputs.molecule, MoleculeGraphEncoder):
                raise InputError(
                    f"model.atom_heads={atom_heads} look at atoms: set model.inputs.molecule.encoder=graph"
                )
            part = self.inputs.line_embedding.embedding_dim
            self.atoms = GeneAtomAttention(part, genes.width, width, atom_heads)
        # By name, so that a drug keeps its experts whatever table it stands in.
        keys = [zlib.crc32(name.encode()) for name in spec.molecules.id]
        self.register_buffer("key_D", torch.tensor(keys, dtype=torch.int64), persistent=False)
        self.usage = ExpertUsage(router.count, len(spec.lines))
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
            self.usage.add(routing.weight_BE(), batch.line, batch.log_dose)
        return super().losses(batch, prediction) | {"balance": routing.balance(), "z": routing.logit_size()}

    def gene_embeddings(self) -> dict[str, Tensor]:
        """``genes``: gamma [G, D]."""
        return {"genes": self.genes()}

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


PUBLISHED_INPUTS = InputOptions(basal="raw", dose=False, unknown=False, line=LineOptions(sd=0.02))
"""The raw basal profile, and neither dose nor vectors for what is unknown."""
PUBLISHED_ROUTER = RouterOptions(start_sd=None)
PUBLISHED_GENES = GeneOptions(sd=0.02, gain=1.0)


class CheMoEPublished(CheMoE):
    """``CheMoE`` as published for PDGrapher: it predicts the level, and every parameter decays, gamma and norms too.

    That drives gamma to 0 and the prediction to a constant.

    Args:
        spec: Of drug response.
        inputs: See ``CheMoE``.
        head: See ``CheMoE``.
        router: See ``CheMoE``; its gate starts as torch starts it.
        genes: See ``CheMoE``; the table starts small and is read as it stands.
        others: See ``CheMoE``.
    """

    def __init__(
        self,
        spec: DrugResponseSpec,
        *,
        inputs: InputOptions | None = PUBLISHED_INPUTS,
        head: str = "level",
        router: RouterOptions | str | None = PUBLISHED_ROUTER,
        genes: GeneOptions | None = PUBLISHED_GENES,
        **others: Any,
    ) -> None:
        super().__init__(spec, inputs=inputs, head=head, router=router, genes=genes, **others)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """One group, whose every parameter decays."""
        return [{"params": list(self.parameters())}]


class Routing(NamedTuple):
    """The experts of B samples.

    Attributes:
        expert_BK: Numbers of the K experts that read a sample, each once, int64 [B, K].
        weight_BK: How much each counts, rows adding up to 1 unless K = 1 of more [B, K].
        logit_BE: Of all E experts, float32 [B, E]; none where nothing is learned.
        n_experts: E.
    """

    expert_BK: Tensor
    weight_BK: Tensor
    logit_BE: Tensor | None
    n_experts: int

    def weight_BE(self) -> Float[Tensor, "B E"]:
        """The weights of all experts, 0 for those that do not read a sample."""
        empty = self.weight_BK.new_zeros(len(self.weight_BK), self.n_experts)
        return empty.scatter(1, self.expert_BK, self.weight_BK)

    def balance(self) -> Float[Tensor, ""]:
        r"""E sum_i f_i P_i: f_i the share of places that expert i got, P_i its mean probability; 1 when even.

        P is the softmax over all experts, so that one which was never chosen still has a gradient (Fedus, Zoph and
        Shazeer, JMLR 2022, equation 4). 0 where nothing is learned.
        """
        if self.logit_BE is None:
            return self.weight_BK.new_zeros(())
        place_E = torch.bincount(self.expert_BK.flatten(), minlength=self.n_experts)
        share_E = place_E.to(self.logit_BE.dtype) / max(self.expert_BK.numel(), 1)
        return self.n_experts * (share_E * self.logit_BE.softmax(1).mean(0)).sum()

    def logit_size(self) -> Float[Tensor, ""]:
        """Mean squared log-sum-exp of the logits (z-loss, Zoph et al., arXiv:2202.08906); 0 without a gate."""
        if self.logit_BE is None:
            return self.weight_BK.new_zeros(())
        return self.logit_BE.logsumexp(1).square().mean()


class Router(nn.Module):
    r"""Chooses K of E experts a sample.

    ``top_k``: the K largest of softmax(gate(h)), divided by their sum (for K = 1 the probability itself, as else the
    gate had no gradient). ``dense``: all, by their probability. ``uniform``: all alike. ``hash``: K that the sample's
    key names, alike. The gate is Linear, LayerNorm, ReLU, Linear in float32, and starts near zero.

    Args:
        features: Width H of what the gate reads.
        n_experts: E.
        top_k: K for ``top_k`` and ``hash``.
        choice: See above.
        hidden: Width of the gate's hidden layer.
        start_sd: Of the last layer's fresh weights, 0.01 for near zero; none: torch's own, as published.
        bias_rate: Step of a bias a expert that counts in the choice only, and rises by each ``even_out`` where an
            expert got less than its share (Wang et al., arXiv:2408.15664); 0: no such bias.

    Raises:
        ValueError: An unknown choice, or more experts a sample than there are.

    Shapes:
        h_BH [B, H] and key_B int64 [B] -> ``Routing``.
    """

    bias_E: Tensor

    def __init__(
        self,
        features: int,
        n_experts: int,
        top_k: int,
        choice: str = "top_k",
        hidden: int = 128,
        start_sd: float | int | None = 0.01,
        bias_rate: float | int = 0.0,
    ) -> None:
        super().__init__()
        if choice not in CHOICES:
            raise ValueError(f"router {choice!r} is none of {CHOICES}")
        if not 1 <= top_k <= n_experts:
            raise ValueError(f"{top_k} experts a sample of {n_experts}")
        self.n_experts, self.top_k, self.choice, self.bias_rate = n_experts, top_k, choice, bias_rate
        self.gate: nn.Sequential | None = None
        if choice in ("top_k", "dense"):
            self.gate = nn.Sequential(
                nn.Linear(features, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, n_experts)
            )
            if start_sd is not None:
                last = self.gate[-1]
                assert isinstance(last, nn.Linear)
                nn.init.normal_(last.weight, std=start_sd)
                nn.init.zeros_(last.bias)
        self.register_buffer("bias_E", torch.zeros(n_experts))
        self._place_E: Tensor | None = None

    def forward(self, h_BH: Float[Tensor, "B H"], key_B: Int[Tensor, " B"] | None = None) -> Routing:
        """Experts and weights of each sample."""
        n, n_experts = len(h_BH), self.n_experts
        everyone_BE = torch.arange(n_experts, device=h_BH.device).expand(n, -1)
        if self.choice == "uniform":
            return Routing(everyone_BE, h_BH.new_full((n, n_experts), 1 / n_experts), None, n_experts)
        if self.choice == "hash":
            assert key_B is not None, "hash routing needs a key a sample"
            expert_BK = (key_B[:, None] + torch.arange(self.top_k, device=h_BH.device)) % n_experts
            return Routing(expert_BK, h_BH.new_full(expert_BK.shape, 1 / self.top_k), None, n_experts)
        assert self.gate is not None
        with torch.autocast(h_BH.device.type, enabled=False):
            logit_BE = self.gate(full_precision(h_BH))
            share_BE = logit_BE.softmax(1)
        if self.choice == "dense":
            return Routing(everyone_BE, share_BE, logit_BE, n_experts)
        expert_BK = (share_BE.detach() + self.bias_E).topk(self.top_k, dim=1).indices
        weight_BK = share_BE.gather(1, expert_BK)
        if self.top_k > 1:
            weight_BK = weight_BK / weight_BK.sum(1, keepdim=True)
        if self.training and self.bias_rate:
            place_E = torch.bincount(expert_BK.flatten(), minlength=n_experts)
            self._place_E = place_E if self._place_E is None else self._place_E + place_E
        return Routing(expert_BK, weight_BK, logit_BE, n_experts)

    @torch.no_grad()
    def even_out(self, add_up: Callable[[Tensor], Tensor] = lambda counts: counts) -> None:
        """Move the bias by the places that each expert got since the last call, if any were counted.

        Args:
            add_up: Sums them over processes, whose biases then stay one.
        """
        if self._place_E is None:
            return
        place_E, self._place_E = add_up(self._place_E).to(self.bias_E), None
        self.bias_E.add_(self.bias_rate * (place_E.mean() - place_E).sign())


class MixtureOfExperts(nn.Module):
    r"""y_b = sum over the chosen experts e of w_be f_e(h_b, gamma).

    Rows are sent by ``index_select`` and put back by ``index_add``; this equals the dense form, all experts on all
    samples and weights of 0, to rounding. An expert without samples runs on no rows, so its weights get a gradient of
    0 instead of none, which DDP would wait for.

    Args:
        router: Chooses experts and weights.
        experts: Modules h [b, H], gamma [G, D] -> [b, G].

    Shapes:
        h_BH [B, H], gamma_GD [G, D], key_B int64 [B] -> [B, G] and the ``Routing``.
    """

    def __init__(self, router: Router, experts: Sequence[nn.Module]) -> None:
        super().__init__()
        if len(experts) != router.n_experts:
            raise ValueError(f"{len(experts)} experts for a router of {router.n_experts}")
        self.router, self.experts = router, nn.ModuleList(experts)

    def forward(
        self,
        h_BH: Float[Tensor, "B H"],
        gamma_GD: Float[Tensor, "G D"],
        key_B: Int[Tensor, " B"] | None = None,
    ) -> tuple[Float[Tensor, "B G"], Routing]:
        """The mixture, and who took part in it."""
        routing = self.router(h_BH, key_B)
        mixed_BG: Tensor | None = None
        for number, expert in enumerate(cast(Sequence[nn.Module], self.experts)):
            row_M, place_M = (routing.expert_BK == number).nonzero(as_tuple=True)
            said_MG = expert(h_BH.index_select(0, row_M), gamma_GD)
            weighted_MG = (routing.weight_BK[row_M, place_M, None] * said_MG).to(said_MG.dtype)
            if mixed_BG is None:
                mixed_BG = said_MG.new_zeros(len(h_BH), len(gamma_GD))
            mixed_BG = mixed_BG.index_add(0, row_M, weighted_MG)
        assert mixed_BG is not None
        return mixed_BG, routing


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
