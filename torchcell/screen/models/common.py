"""What models of screens share: options, merging relations, perturbation types, Hyper-SAGNN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from torchcell.core.options import a_rate, at_least, check_options
from torchcell.io.errors import InputError, some
from torchcell.nn.ragged import pad
from torchcell.screen.record import KINDS


@dataclass(frozen=True)
class ImputationOptions:
    """What stands for the free vector of a gene without training samples; see ``Imputation``.

    Attributes:
        neighbors: Trained genes with the most similar neighborhoods that lend it their mean; 0 leaves it with its own.
        power: Exponent of their similarity.
        untrained_rate: Rate of the genes that a training step treats as untrained.
    """

    neighbors: int = 0
    power: float = 2.0
    untrained_rate: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        check_options(
            "model.embedding.imputation", self, neighbors=at_least(0), power=at_least(0), untrained_rate=a_rate()
        )


@dataclass(frozen=True)
class EmbeddingOptions:
    """A free embedding a gene, of a table's rows.

    Attributes:
        sd: Length of a fresh embedding; each entry is drawn with sd / sqrt(dim). A gene that is never trained keeps it.
        gain: The embedding is this times the table's row, so Adam moves it so many times faster than weights.
        decay: Weight of the loss ``embedding``, the members' mean squared embedding length; 0 leaves it out.
    """

    sd: float = 1.0
    gain: float = 3.0
    decay: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        check_options("model.embedding", self, sd=at_least(0), decay=at_least(0))


class HyperSAGNN(nn.Module):
    r"""Hyper-SAGNN (Zhang, Zou and Ma, ICLR 2020, arXiv:1911.02613) on sets of any size.

    .. math::
        s_i = \tanh(W_s x_i), \quad d_i = \tanh(W_o \, \mathrm{attention}_{j \ne i}(x_i, x_j)), \quad
        y = \frac{1}{|S|} \sum_{i \in S} W_y \, g(d_i, s_i) + b

    with g = (d - s)^2 as published, or g = d * s. The attention of a member runs over the other members of
    its own set, never over the batch: sets are padded to the largest. A set of one has no others, so its d
    is 0. The order of the members changes nothing.

    Args:
        features: Width D of a member.
        outputs: Number T of scores.
        heads: Attention heads; D must be a multiple.
        score: ``difference`` for (d - s)^2, ``product`` for d * s.
        dropout: Share of g's entries dropped in training.

    Shapes:
        x_MD [M, D] and ptr [B + 1] -> [B, T].
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        heads: int = 4,
        score: str = "difference",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if features % heads:
            raise InputError(f"{features} features do not divide into {heads} heads")
        if score not in ("difference", "product"):
            raise ValueError(f"score is 'difference' or 'product', not {score!r}")
        self.features, self.outputs, self.heads = features, outputs, heads
        self.score, self.dropout = score, dropout
        self.static = nn.Linear(features, features)
        self.query_key_value = nn.Linear(features, 3 * features, bias=False)
        self.dynamic = nn.Linear(features, features)
        self.readout = nn.Linear(features, outputs)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights: rotations before the score and signs after it.

        So a fresh layer is already an indefinite bilinear form of unit size. With the usual small weights
        the product of two members' features starts near zero and is learned last, after overfitting.
        """
        self.query_key_value.reset_parameters()
        for weight in (self.static.weight, self.dynamic.weight, self.query_key_value.weight[-self.features :]):
            nn.init.orthogonal_(weight.data)
        with torch.no_grad():
            self.readout.weight.normal_().sign_()
        for layer in (self.static, self.dynamic, self.readout):
            nn.init.zeros_(layer.bias)

    def forward(self, x_MD: Float[Tensor, "M D"], ptr_P: Int[Tensor, " P"]) -> Float[Tensor, "B T"]:
        """One row of scores a set; ``ptr_P`` [B + 1] says which members are whose."""
        index_BS, mask_BS = pad(ptr_P)
        static_MD = torch.tanh(self.static(x_MD))
        dynamic_BSD = self._dynamic(self.query_key_value(x_MD)[index_BS], mask_BS)
        static_BSD = static_MD[index_BS]
        both = dynamic_BSD * static_BSD if self.score == "product" else (dynamic_BSD - static_BSD).square()
        # The readout is linear, so the mean over the members may come before it.
        share_BS = mask_BS / mask_BS.sum(1, keepdim=True).clamp(min=1)
        pooled_BD = torch.einsum("bs,bsd->bd", share_BS.to(both.dtype), both)
        return self.readout(nn.functional.dropout(pooled_BD, self.dropout, self.training))

    def _dynamic(self, qkv_BSF: Float[Tensor, "B S F"], mask_BS: Bool[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """What the other members of the set make of each member; 0 where there are no others."""
        n_sets, size, _ = qkv_BSF.shape
        width = self.features // self.heads
        query, key, value = qkv_BSF.view(n_sets, size, 3, self.heads, width).permute(2, 0, 3, 1, 4)
        self_SS = torch.eye(size, dtype=torch.bool, device=mask_BS.device)
        other_BSS = mask_BS[:, :, None] & mask_BS[:, None, :] & ~self_SS
        score_BHSS = query @ key.transpose(-1, -2) / math.sqrt(width)
        # The lowest finite number, not -inf: a member without others would turn into NaN.
        score_BHSS = score_BHSS.masked_fill(~other_BSS[:, None], torch.finfo(score_BHSS.dtype).min)
        seen_BSD = (score_BHSS.softmax(-1) @ value).transpose(1, 2).reshape(n_sets, size, self.features)
        return torch.tanh(self.dynamic(seen_BSD)) * other_BSS.any(-1, keepdim=True)

    def extra_repr(self) -> str:
        """Widths, heads and the score."""
        return f"{self.features}, {self.outputs}, heads={self.heads}, score={self.score}, dropout={self.dropout}"


class KindRows(nn.Module):
    """Number the kinds as records do, and get them back as rows of a table that has only the trained ones.

    Training data hold no kind but the trained ones, so only evaluation looks, which makes a GPU wait.

    Args:
        kinds: Names of the trained kinds, in the order of the rows; ``Spec.kinds``.

    Shapes:
        kind_M [M], positions in ``torchcell.screen.record.KINDS`` -> [M], positions in ``kinds``.

    Raises:
        InputError: A name that is no kind of perturbation; in evaluation mode, a kind that was not trained.
    """

    row_K: Tensor

    def __init__(self, kinds: Sequence[str]) -> None:
        super().__init__()
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown:
            raise InputError(f"no kind of perturbation is called {some(unknown)}; choose from {list(KINDS)}")
        self.kinds = tuple(kinds)
        rows = [self.kinds.index(kind) if kind in self.kinds else -1 for kind in KINDS]
        # Not in the state: it follows from the names, which the spec keeps.
        self.register_buffer("row_K", torch.tensor(rows), persistent=False)

    def forward(self, kind_M: Int[Tensor, " M"]) -> Int[Tensor, " M"]:
        """The row of each kind."""
        row_M = self.row_K[kind_M]
        if not self.training and (row_M < 0).any():
            unseen = [KINDS[number] for number in kind_M[row_M < 0].unique().tolist()]
            raise InputError(
                f"kinds of perturbation that were not in training: {some(unseen)}; the model knows "
                f"{some(self.kinds)}. Leave these sets out, or train with such sets"
            )
        return row_M

    def extra_repr(self) -> str:
        """The trained kinds."""
        return ", ".join(self.kinds)


class RelationMerge(nn.Module):
    r"""Per-gene softmax over channels (Zhang et al., bioRxiv 2020.11.26.400739, meta-embedding).

    .. math::
        y_i = \sum_c \alpha_{ic} z_{ic}, \quad
        \alpha_{i\cdot} = \mathrm{softmax}_c\!\left(v_c^\top z_{ic} + b_c\right)

    It starts as the plain mean over channels: v and b are zero.

    Args:
        channels: Number C of relations.
        features: Width D.

    Shapes:
        z_CND [C, N, D] -> [N, D].
    """

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.channels, self.features = channels, features
        self.weight = nn.Parameter(torch.empty(channels, features))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to the plain mean."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, z_CND: Float[Tensor, "C N D"]) -> Float[Tensor, "N D"]:
        """One merged row a gene."""
        # Not an einsum: its backward pass is one tiny product a gene, ten times slower.
        return (self.share(z_CND)[:, :, None] * z_CND).sum(0)

    def share(self, z_CND: Float[Tensor, "C N D"]) -> Float[Tensor, "C N"]:
        """The weight alpha of each channel for each gene; columns add up to 1."""
        score_CN = (z_CND @ self.weight[:, :, None]).squeeze(-1) + self.bias[:, None]
        return score_CN.softmax(0)

    def extra_repr(self) -> str:
        """Number of channels and width."""
        return f"{self.channels}, {self.features}"
