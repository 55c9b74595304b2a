"""The graph terms of a whole network: which heads they read, what they add up to, what they show."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchcell.graph.cell_graph import CellGraph
from torchcell.nn.cell_encoder import HeadScores
from torchcell.nn.graph_term import GraphTerm
from torchcell.nn.graph_ties import Tie


class GraphTerms(nn.Module):
    r"""One ``GraphTerm`` a relation, on all heads that are tied to it.

    .. math::
        L_r = \frac{\lambda_r}{K} \sum_{(l, h) \text{ tied to } r} \mathrm{KL}_{r}(\alpha^{(l, h)})

    with K ties in all, so that the sum over relations is a mean over heads and does not grow with them.

    Args:
        graph: The networks that the heads are drawn towards.
        ties: Which relation is on which head, see ``graph_ties``.
        loss: ``kl`` or ``bce``.
        rows: See ``GraphTerm``.
        negatives: See ``GraphTerm``.
    """

    def __init__(
        self,
        graph: CellGraph,
        ties: Sequence[Tie],
        loss: str = "kl",
        rows: int | None = None,
        negatives: int | None = None,
    ) -> None:
        super().__init__()
        self.ties, self.loss = list(ties), loss
        # By number: a relation may have any name, a module may not.
        self.relations = list(dict.fromkeys(tie.relation for tie in ties))
        self.terms = nn.ModuleList(GraphTerm(graph, name, loss, rows, negatives) for name in self.relations)

    @property
    def places(self) -> list[tuple[int, int]]:
        """(layer, head) of each tie: whose queries and keys the terms read."""
        return [(tie.layer, tie.head) for tie in self.ties]

    @property
    def summed(self) -> list[tuple[int, int]]:
        """Those of them whose log-sum-exp the objective reads in this mode."""
        return [(tie.layer, tie.head) for tie in self.ties if self.training and tie.weight and self._of(tie).needs_lse]

    def losses(self, scores: Sequence[HeadScores]) -> dict[str, Float[Tensor, ""]]:
        """``graph_<relation>`` -> L_r, without relations whose lambda is 0."""
        found: dict[str, Tensor] = {}
        for tie, each in zip(self.ties, scores, strict=True):
            if tie.weight:
                term, name = tie.weight / len(self.ties) * self._of(tie)(*each), f"graph_{tie.relation}"
                found[name] = found[name] + term if name in found else term
        return found

    def diagnostics(self, scores: Sequence[HeadScores]) -> dict[str, Float[Tensor, ""]]:
        """``graph_kl_<relation>`` and ``edge_recall_<relation>``, lambda or not; the mean over a relation's heads."""
        found: dict[str, list[Tensor]] = {}
        for tie, value, recall in zip(self.ties, self.values(scores), self.recalls(scores), strict=True):
            found.setdefault(f"graph_{self.loss}_{tie.relation}", []).append(value)
            found.setdefault(f"edge_recall_{tie.relation}", []).append(recall)
        return {name: torch.stack(values).mean() for name, values in found.items()}

    def recalls(self, scores: Sequence[HeadScores]) -> list[Float[Tensor, ""]]:
        """Edge recall of each tied head."""
        return [self._of(tie).edge_recall(each.q_TD, each.k_TD) for tie, each in zip(self.ties, scores, strict=True)]

    def values(self, scores: Sequence[HeadScores]) -> list[Float[Tensor, ""]]:
        """Divergence of each tied head, without lambda."""
        return [self._of(tie)(*each) for tie, each in zip(self.ties, scores, strict=True)]

    def _of(self, tie: Tie) -> GraphTerm:
        term = self.terms[self.relations.index(tie.relation)]
        assert isinstance(term, GraphTerm)
        return term
