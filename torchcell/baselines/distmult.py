"""DistMult with node biases over all relations."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from torchcell.baselines.base import one_thread
from torchcell.baselines.edge_draws import Draw, EdgeDraws
from torchcell.baselines.link_baseline import Choice, LinkBaseline
from torchcell.baselines.typed_counts import SMOOTHING
from torchcell.data.links import Links

MOST_PAIRS = 300_000
"""Pairs scored at once: two embeddings of 64 for so many pairs are 150 MB."""


class _Net(nn.Module):
    """<e_s, w_m, e_t> + b_ms + b_mt + a_m log(d_s + .1) + a'_m log(d_t + .1) + c_m."""

    def __init__(self, draws: EdgeDraws, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        n_metaedges = len(draws.metaedges)
        self.node = nn.Parameter(0.1 * torch.randn(draws.n_nodes, dim, generator=generator))
        self.relation = nn.Parameter(torch.ones(n_metaedges, dim))
        self.bias = nn.Parameter(torch.zeros(draws.n_slots, 1))
        self.slope = nn.Parameter(torch.ones(n_metaedges, 2))
        self.constant = nn.Parameter(torch.zeros(n_metaedges, 1))
        self.log_degree = (draws.degree + SMOOTHING).log()
        self.symmetric = draws.symmetric[:, None]

    def forward(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Log-odds of the candidates [B], and the squared length of their embeddings and biases [B]."""
        ends = functional.embedding(draw.ends, self.node)
        bias = functional.embedding(draw.slots, self.bias).squeeze(-1)
        # A product with a few one-hot columns: its backward is a product too, not a loop over candidates.
        metaedge = functional.one_hot(draw.metaedge, len(self.relation)).float()
        slope = torch.where(self.symmetric, self.slope[:, :1], self.slope)
        known = (self.log_degree[draw.slots].T * (metaedge @ slope)).sum(-1)
        product = (ends[0] * (metaedge @ self.relation) * ends[1]).sum(-1)
        score = product + bias.sum(0) + known + (metaedge @ self.constant).squeeze(-1)
        return score, ends.square().sum((0, 2)) + bias.square().sum(0)


class DistMult(LinkBaseline):
    """DistMult (Yang et al., ICLR 2015, arXiv:1412.6575) with node biases, trained on the edges of all metaedges.

    Negatives are matched to the degrees and uniform, half and half. Their known density is taken out of the logits
    (noise-contrastive estimation), so that the score ranks all pairs. It starts from the degree product. How many
    steps serve is chosen on val.

    Args:
        dim: Width of the embedding.
        lr: Adam, falling to 0 in a straight line.
        penalty: L2 on the embeddings and biases of the candidates of a step.
        share: Share of a step's edges that are drawn from the supervised metaedges alike.
        batch_size: Edges a step.
        negatives: Of each kind, an edge.
        steps: Steps of the optimiser.
        check_every: Steps between two looks at val.
        seed: Of the start and of what is drawn.
    """

    name = "distmult"

    def __init__(
        self,
        dim: int = 64,
        lr: float = 0.01,
        penalty: float = 0.03,
        share: float = 0.15,
        batch_size: int = 2048,
        negatives: int = 2,
        steps: int = 1000,
        check_every: int = 100,
        seed: int = 0,
    ) -> None:
        self.dim, self.lr, self.penalty, self.share = dim, lr, penalty, share
        self.batch_size, self.negatives, self.n_steps = batch_size, negatives, steps
        self.check_every, self.seed = check_every, seed

    def prepare(self, train: Links, val: Links) -> None:
        """Train one network for all metaedges."""
        generator = torch.Generator().manual_seed(self.seed)
        self.draws = EdgeDraws(train.graph, self.steps, generator)
        self.net = _Net(self.draws, self.dim, generator)
        choices = {m: Choice(self.steps, m, val.subset(val.metaedge == m)) for m in train.supervised}
        with one_thread():
            self._train(choices)

    def fit_one(self, metaedge: str, train: Links, val: Links) -> None:
        """Nothing more is fitted."""

    def _train(self, choices: dict[str, Choice]) -> None:
        optimizer = torch.optim.Adam(self.net.parameters(), lr=self.lr, fused=True)
        weight = self.draws.weights(list(choices), self.share)
        best, kept, self.best_step = -np.inf, self._state(), 0
        for step in range(self.n_steps + 1):
            if step % self.check_every == 0 or step == self.n_steps:
                values = [choice(self.score(m, None, choice.source, choice.target)) for m, choice in choices.items()]
                if (value := float(np.mean([v for v in values if np.isfinite(v)] or [-np.inf]))) > best:
                    best, kept, self.best_step = value, self._state(), step
            optimizer.param_groups[0]["lr"] = self.lr * (1 - step / (self.n_steps + 1))
            loss = self._loss(weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.net.load_state_dict(kept)

    def _loss(self, weight: Tensor) -> Tensor:
        """BCE of a batch of edges and their negatives, and the penalty; per edge, edges and negatives alike."""
        draw = self.draws.draw(self.batch_size, self.negatives, weight)
        score, length = self.net(draw)
        logit = score - self.draws.log_density(draw)
        each = functional.binary_cross_entropy_with_logits(logit, draw.label, reduction="none")
        share = torch.where(draw.label > 0, 1.0, 0.5 / self.negatives)
        return ((each + self.penalty * length) * share).sum() / self.batch_size

    def _state(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.net.state_dict().items()}

    @torch.no_grad()
    def score(self, metaedge: str, fitted: None, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """See ``LinkBaseline``."""
        score = np.zeros(len(source), dtype=np.float32)
        for low in range(0, len(source), MOST_PAIRS):
            part = slice(low, low + MOST_PAIRS)
            score[part] = self.net(self.draws.pairs(metaedge, source[part], target[part]))[0].numpy()
        return score
