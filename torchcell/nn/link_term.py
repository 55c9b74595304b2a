"""Links told from shared negatives at either end, one metaedge at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcell.data.errors import InputError
from torchcell.nn.dist_mult import DistMult
from torchcell.nn.link_negatives import LinkNegatives
from torchcell.nn.link_scores import LinkScores

Look = Callable[[Tensor], Tensor]
"""Node numbers [n] -> their vectors [n, D]."""


class LinkDraw(NamedTuple):
    """P links of one metaedge and what they are told from.

    Attributes:
        code: Of the metaedge.
        source: Node numbers [P].
        target: Node numbers [P].
        heads: Nodes that replace the source [K].
        tails: Nodes that replace the target [K].
    """

    code: int
    source: Tensor
    target: Tensor
    heads: Tensor
    tails: Tensor

    @property
    def nodes(self) -> Int[Tensor, " n"]:
        """All nodes whose vectors the term reads."""
        return torch.cat(self[1:])


class LinkTerm(nn.Module):
    r"""How badly links are told from shared negatives, mean over links and over the two ends.

    ``bce``: softplus(-s) of the link + the mean over its negatives of softplus(s), 2 ln 2 at constant scores; the
    prior of log-odds made so is one half. ``softmax``: -log of the link's share of exp(s) among itself and its
    negatives, log(1 + K) at constant scores, which is a bound on the log of its rank. A negative that is a known
    link takes no part.

    Args:
        negatives: Where they are drawn, and which pairs are known.
        count: K, negatives a link and end; as many as the kind has nodes or more: each node once.
        form: ``bce`` or ``softmax``.
    """

    def __init__(self, negatives: LinkNegatives, count: int, form: str) -> None:
        super().__init__()
        if form not in ("bce", "softmax"):
            raise InputError(f"model.link_loss is 'bce' or 'softmax', not {form!r}")
        self.negatives, self.count, self.form = negatives, count, form

    def draw(self, code: int, source: Int[Tensor, " P"], target: Int[Tensor, " P"]) -> LinkDraw:
        """The negatives of P links of one metaedge."""
        return LinkDraw(code, source, target, *(self._others(code, end) for end in (0, 1)))

    def forward(self, look: Look, decoder: DistMult | LinkScores, draws: Sequence[LinkDraw]) -> Float[Tensor, ""]:
        """The term over the links of several metaedges, each link counting the same.

        Args:
            look: Vectors of nodes by number.
            decoder: Scores them.
            draws: The links; without any the term is 0.
        """
        whole = [self._sum(look, decoder, draw) for draw in draws if len(draw.source)]
        n_links = sum(len(draw.source) for draw in draws)
        return torch.stack(whole).sum() / n_links if whole else decoder.weight.sum() * 0

    def _others(self, code: int, end: int) -> Tensor:
        first, last = self.negatives.ranges[code][end]
        if last - first <= self.count:
            return torch.arange(first, last, device=self.negatives.get_buffer(f"key{code}").device)
        return self.negatives.draw(code, end, self.count)

    def _sum(self, look: Look, decoder: DistMult | LinkScores, draw: LinkDraw) -> Tensor:
        source_PD, target_PD = look(draw.source), look(draw.target)
        code_P = torch.full_like(draw.source, draw.code)
        link_P = decoder(source_PD, target_PD, code_P, draw.source, draw.target)
        tail_PK = decoder.grid(source_PD, look(draw.tails), draw.code, draw.source, draw.tails)
        head_PK = decoder.grid(look(draw.heads), target_PD, draw.code, draw.heads, draw.target).T
        known_tail = self._known(draw.code, draw.source[:, None], draw.tails[None])
        known_head = self._known(draw.code, draw.heads[None], draw.target[:, None])
        ends = ((tail_PK, known_tail), (head_PK, known_head))
        return torch.stack([self._loss(link_P, other_PK, known) for other_PK, known in ends]).mean(0).sum()

    def _known(self, code: int, source: Tensor, target: Tensor) -> Tensor:
        """Which pairs are known links [P, K]."""
        return self.negatives.known(code, *torch.broadcast_tensors(source, target))

    def _loss(self, link_P: Tensor, other_PK: Tensor, known_PK: Tensor) -> Tensor:
        """Of each link against its negatives at one end [P]."""
        if self.form == "softmax":
            other_PK = other_PK.masked_fill(known_PK, -torch.inf)
            return torch.cat([link_P[:, None], other_PK], dim=1).logsumexp(1) - link_P
        free_PK = (~known_PK).to(other_PK.dtype)
        mean_P = (nn.functional.softplus(other_PK) * free_PK).sum(1) / free_PK.sum(1).clamp(min=1)
        return nn.functional.softplus(-link_P) + mean_P
