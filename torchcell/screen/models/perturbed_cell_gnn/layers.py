"""Layers over several networks and how their messages are merged."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.nn import GraphNorm

from torchcell.io.errors import InputError, near
from torchcell.nn.relations import Cell, relational_product
from torchcell.screen.models.common import RelationMerge


class PairwiseMerge(nn.Module):
    r"""An MLP for each pair of relations, weighted by a softmax over the pairs.

    .. math::
        y_i = \sum_{r < s} \alpha_{rs} \, V_{rs} \, \mathrm{relu}(U_{rs} z_{ri} + U'_{rs} z_{si} + b_{rs}), \quad
        \alpha = \mathrm{softmax}(a)

    So a node can be distinguished by what two networks say together. A single relation is paired with itself.

    Args:
        relations: Number R of relations.
        features: Width D.

    Shapes:
        z_RND [R, N, D] -> [N, D].
    """

    def __init__(self, relations: int, features: int) -> None:
        super().__init__()
        self.relations, self.features = relations, features
        pairs = torch.combinations(torch.arange(relations), 2) if relations > 1 else torch.zeros(1, 2, dtype=torch.long)
        self.pairs: list[list[int]] = pairs.tolist()
        self.left = nn.Parameter(torch.empty(len(pairs), features, features))
        self.right = nn.Parameter(torch.empty(len(pairs), features, features))
        self.out = nn.Parameter(torch.empty(len(pairs), features, features))
        self.hidden_bias = nn.Parameter(torch.zeros(len(pairs), features))
        self.score = nn.Parameter(torch.zeros(len(pairs)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new matrices; all pairs weigh alike."""
        bound = (3 / self.features) ** 0.5
        for matrix, share in ((self.left, 0.5), (self.right, 0.5), (self.out, 1.0)):
            nn.init.uniform_(matrix, -bound * share**0.5, bound * share**0.5)
        nn.init.zeros_(self.hidden_bias)
        nn.init.zeros_(self.score)

    def forward(self, z_RND: Float[Tensor, "R N D"]) -> Float[Tensor, "N D"]:
        """One merged row a node."""
        share = self.share()
        total_ND = torch.zeros_like(z_RND[0])
        for number, (r, s) in enumerate(self.pairs):  # one pair at a time: there are R(R - 1)/2 of them
            hidden_ND = torch.relu(
                z_RND[r] @ self.left[number] + z_RND[s] @ self.right[number] + self.hidden_bias[number]
            )
            total_ND = total_ND + share[number] * (hidden_ND @ self.out[number])
        return total_ND

    def share(self) -> Float[Tensor, " P"]:
        """The weight of each pair; they add up to 1."""
        return self.score.softmax(0)

    def extra_repr(self) -> str:
        """Number of relations and width."""
        return f"{self.relations}, {self.features}"


AGGREGATIONS = ("rgcn", "sage", "gin")
MERGES = ("sum", "mean", "attention", "pairwise")
NORMS = ("none", "layer", "batch", "graph")


class RelationalLayer(nn.Module):
    r"""A layer in two steps: messages :math:`Y_r = A_r X W_r`, and an update of each node from X and its Y_r.

    ====  =========================================================  ==========================================
    rgcn  :math:`z_r = Y_r`, and :math:`X W_0` beside the merge      Schlichtkrull et al., arXiv:1703.06103
    sage  :math:`z_r = Y_r + X V_r`                                  Hamilton et al., arXiv:1706.02216
    gin   :math:`z_r = MLP_r((1 + \epsilon_r) X + A_r X)`            Xu et al., arXiv:1810.00826
    ====  =========================================================  ==========================================

    The merge over r is a sum, a mean, a softmax over relations a node, or pairwise. Then norm, ReLU and residual.
    All but the messages happens within a node, which is what makes deltas exact; batch and graph norm are the
    exceptions.

    Args:
        features: Width D of input and output.
        n_relations: R.
        aggregation: ``rgcn``, ``sage`` or ``gin``.
        merge: ``sum``, ``mean``, ``attention`` or ``pairwise``.
        norm: ``none``, ``layer``, or over the nodes of one graph ``batch`` or ``graph``.
        residual: Add the input to the output.
        linear: No norm, no ReLU, no residual: as a last layer before a pooled readout.

    Shapes:
        x_ND [N, D] -> [N, D].
    """

    def __init__(
        self,
        features: int,
        n_relations: int,
        aggregation: str = "rgcn",
        merge: str = "sum",
        norm: str = "layer",
        residual: bool = True,
        linear: bool = False,
    ) -> None:
        super().__init__()
        for name, choice, choices in (
            ("aggregation", aggregation, AGGREGATIONS), ("merge", merge, MERGES), ("norm", norm, NORMS),
        ):  # fmt: skip
            if choice not in choices:
                raise InputError(f"{name}={choice!r}: choose one of {near(choice, choices) or list(choices)}")
        self.features, self.n_relations, self.aggregation = features, n_relations, aggregation
        self.merge_name, self.residual, self.linear = merge, residual and not linear, linear
        self.bias = nn.Parameter(torch.zeros(features))
        if aggregation == "gin":
            self.epsilon = nn.Parameter(torch.zeros(n_relations))
            self.first = nn.Parameter(torch.empty(n_relations, features, features))
            self.second = nn.Parameter(torch.empty(n_relations, features, features))
            self.first_bias = nn.Parameter(torch.zeros(n_relations, 1, features))
        else:
            self.message = nn.Parameter(torch.empty(n_relations, features, features))
            self.own = nn.Parameter(torch.empty(1 if aggregation == "rgcn" else n_relations, features, features))
        self.merge: nn.Module | None = None
        if merge == "attention":
            self.merge = RelationMerge(n_relations, features)
        if merge == "pairwise":
            self.merge = PairwiseMerge(n_relations, features)
        self.norm: nn.Module | None = None
        if not linear and norm != "none":
            self.norm = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d, "graph": GraphNorm}[norm](features)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new matrices, so that the sum over relations has about the size of its input."""
        for name, parameter in self.named_parameters(recurse=False):
            if parameter.ndim == 3 and not name.endswith("bias"):
                shared = self.aggregation != "gin" and self.merge_name == "sum"
                bound = (3 / self.features / (len(parameter) if shared else 1)) ** 0.5
                nn.init.uniform_(parameter, -bound, bound)

    @property
    def weight(self) -> Float[Tensor, "R D K"] | None:
        """W_r of the messages; none where nodes send what they are."""
        if self.aggregation == "gin":
            return None
        return self.message / self.n_relations if self.merge_name == "mean" else self.message

    @property
    def own_matrix(self) -> Float[Tensor, "D K"]:
        """What an additive layer multiplies a node's own features with."""
        return self.own.mean(0) if self.merge_name == "mean" else self.own.sum(0)

    @property
    def additive(self) -> bool:
        """Whether the messages of all relations may be added up before the update."""
        return self.aggregation != "gin" and self.merge is None

    @property
    def mixes_nodes(self) -> str:
        """The norm that reads all nodes at once, if there is one."""
        mixing = (nn.modules.batchnorm._BatchNorm, GraphNorm)
        return next((type(module).__name__ for module in self.modules() if isinstance(module, mixing)), "")

    def forward(self, x_ND: Float[Tensor, "N D"], cell: Cell) -> Float[Tensor, "N D"]:
        """The layer on a cell; nodes that are missing there must be zeros in ``x_ND``, and are in the output."""
        return self.finish(x_ND, self.messages(x_ND, cell), cell)

    def messages(self, x_ND: Float[Tensor, "N D"], cell: Cell) -> Tensor:
        """What reaches each node: [R, N, D], or [N, D] where the relations may be added up at once."""
        return relational_product(cell.pairs, x_ND, self.weight, self.additive and cell.scale_RN is None)

    def finish(self, x_ND: Float[Tensor, "N D"], messages: Tensor, cell: Cell) -> Float[Tensor, "N D"]:
        """The nodes' new features from their own and the messages."""
        return self.update(x_ND, self.scaled(messages, cell.scale_RN), cell.keep_N)

    def scaled(self, y: Tensor, scale_RN: Float[Tensor, "R N"] | None) -> Tensor:
        """Messages times their factor; added up over the relations where the layer is additive."""
        if scale_RN is not None:
            y = scale_RN[:, :, None] * y
        return y.sum(0) if self.additive and y.ndim == 3 else y

    def update(
        self, x_ND: Float[Tensor, "N D"], y: Tensor, keep_N: Float[Tensor, " N"] | None = None
    ) -> Float[Tensor, "N D"]:
        """Any nodes' new features from their own and what reached them.

        Args:
            x_ND: [N, D].
            y: Messages, [N, D] for an additive layer, else [R, N, D].
            keep_N: Missing nodes (0) become zeros and don't count in a norm over nodes.
        """
        out_ND = self._merged(x_ND, y)
        if self.norm is not None:
            out_ND = self._normed(out_ND, keep_N)
        if not self.linear:
            out_ND = torch.relu(out_ND)
        if self.residual:
            out_ND = out_ND + x_ND
        return out_ND if keep_N is None else out_ND * keep_N[:, None]

    def _merged(self, x_ND: Tensor, y: Tensor) -> Tensor:
        if self.additive:
            return torch.addmm(y, x_ND, self.own_matrix) + self.bias
        if self.aggregation == "rgcn":
            return self._merge(y) + x_ND @ self.own[0] + self.bias
        if self.aggregation == "sage":
            return self._merge(y + x_ND @ self.own) + self.bias
        hidden = torch.relu(((1 + self.epsilon)[:, None, None] * x_ND + y) @ self.first + self.first_bias)
        return self._merge(hidden @ self.second) + self.bias

    def _merge(self, z_RND: Tensor) -> Tensor:
        if self.merge is not None:
            return self.merge(z_RND)
        return z_RND.mean(0) if self.merge_name == "mean" else z_RND.sum(0)

    def _normed(self, x_ND: Tensor, keep_N: Tensor | None) -> Tensor:
        assert self.norm is not None
        if keep_N is None or not self.mixes_nodes:
            return self.norm(x_ND)
        there = keep_N.nonzero()[:, 0]
        return torch.zeros_like(x_ND).index_copy(0, there, self.norm(x_ND[there]))

    def extra_repr(self) -> str:
        """Width, relations, aggregation and merge."""
        return f"{self.features}, relations={self.n_relations}, {self.aggregation}, merge={self.merge_name}"
