"""One vector a set from its members: mean, sum, or Hyper-SAGNN."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcell.data.errors import InputError
from torchcell.nn.hyper_sagnn import HyperSAGNN
from torchcell.nn.ragged import segment_mean, segment_sum

POOLINGS: tuple[str, ...] = ("mean", "sum", "hyper_sagnn")
"""What ``SetPooling`` can be told to do."""


class SetPooling(nn.Module):
    r"""Members of a set to one vector of the same width; their order changes nothing.

    .. math::
        q_S = \frac{1}{|S|} \sum_{i \in S} x_i, \quad \sum_{i \in S} x_i, \quad \text{or } \mathrm{HyperSAGNN}(x_S)

    Mean and sum have no weights. Hyper-SAGNN lets each member attend over the others of its set.

    Args:
        features: Width D of a member and of the result.
        pooling: One of ``POOLINGS``.
        heads: Attention heads of Hyper-SAGNN; D must be a multiple. The others have none.

    Shapes:
        x_MD [M, D] and ptr [B + 1] -> [B, D].

    Raises:
        InputError: An unknown pooling.
    """

    def __init__(self, features: int, pooling: str = "mean", heads: int = 4) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise InputError(f"pooling is one of {list(POOLINGS)}, not {pooling!r}")
        self.features, self.pooling = features, pooling
        self.sagnn = HyperSAGNN(features, features, heads) if pooling == "hyper_sagnn" else None

    def reset_parameters(self) -> None:
        """Draw new weights, where there are any."""
        if self.sagnn is not None:
            self.sagnn.reset_parameters()

    def forward(self, x_MD: Float[Tensor, "M D"], ptr_P: Int[Tensor, " P"]) -> Float[Tensor, "B D"]:
        """One row a set; ``ptr_P`` [B + 1] says which members are whose."""
        if self.sagnn is not None:
            return self.sagnn(x_MD, ptr_P)
        return segment_sum(x_MD, ptr_P) if self.pooling == "sum" else segment_mean(x_MD, ptr_P)

    def extra_repr(self) -> str:
        """Width and how the members are pooled."""
        return f"{self.features}, pooling={self.pooling}"
