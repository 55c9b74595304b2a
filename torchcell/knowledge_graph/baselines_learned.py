"""Learned baselines of link prediction: DistMult and a classifier on path features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional

from torchcell.core.predictor import one_thread
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError, some
from torchcell.knowledge_graph.baselines import (
    SMOOTHING,
    Choice,
    LinkBaseline,
    Steps,
    by_rows,
)
from torchcell.knowledge_graph.metapath_features import MetapathFeatures, turned
from torchcell.knowledge_graph.record import KnowledgeGraph, Links
from torchcell.knowledge_graph.typed_graph import TypedGraph


@dataclass(frozen=True, eq=False)
class Draw:
    """B candidates of any edge types.

    Attributes:
        edge_type: Number of the edge type, int64 [B].
        ends: Positions of both ends among all nodes, int64 [2, B].
        slots: The ends' places in a table with one row an edge type, side and node, int64 [2, B].
        label: 1 an edge, 0 a negative, float32 [B].
    """

    edge_type: Tensor
    ends: Tensor
    slots: Tensor
    label: Tensor


class Slots:
    """A table with one row an edge type, side and node; both sides of a symmetric edge type share theirs.

    Args:
        steps: The graph.

    Attributes:
        edge_types: Names in the order of their numbers.
        n_slots: Rows of the table.
        symmetric: The edge types whose two directions mean the same, bool [edge_types].
        degree: Edges at each slot, float32 [n_slots].
    """

    def __init__(self, steps: Steps) -> None:
        self.n_nodes = len(steps.node_id)
        self.edge_types = [step for step in steps.ends if not step.endswith("<")]
        self.members = {node_type: torch.from_numpy(nodes) for node_type, nodes in steps.members.items()}
        self.node_types = [steps.ends[edge_type] for edge_type in self.edge_types]
        first, size, degrees = [], [], []
        n_slots = 0
        for edge_type in self.edge_types:
            sides = [edge_type] if steps.back(edge_type) == edge_type else [edge_type, steps.back(edge_type)]
            degrees += [steps.degree(side) for side in sides]
            lengths = [len(degree) for degree in degrees[-len(sides) :]]
            first.append([n_slots, n_slots + (lengths[0] if len(sides) == 2 else 0)])
            size.append([lengths[0], lengths[-1]])
            n_slots += sum(lengths)
        self.n_slots = n_slots
        self.first, self.size = torch.tensor(first).T, torch.tensor(size).T
        self.symmetric = self.first[0] == self.first[1]
        self.degree = torch.from_numpy(np.concatenate(degrees)).float()
        self.local = torch.from_numpy(steps.local)

    def pairs(self, edge_type: str, source: np.ndarray, target: np.ndarray) -> Draw:
        """Candidates of one edge type, their ends given as places within their node types [B]."""
        number = self.edge_types.index(edge_type)
        ends = [
            self.members[node_type][end]
            for node_type, end in zip(self.node_types[number], (source, target), strict=True)
        ]
        return self._of(torch.full((len(source),), number), torch.stack(ends), torch.zeros(len(source)))

    def _of(self, edge_type: Tensor, ends: Tensor, label: Tensor) -> Draw:
        return Draw(edge_type, ends, self.first[:, edge_type] + self.local[ends], label)


class EdgeDraws(Slots):
    """Draws batches from the edges of a graph.

    Args:
        graph: Edges that may be seen.
        steps: The same as steps.
        generator: Rules what is drawn.
    """

    def __init__(self, graph: KnowledgeGraph, steps: Steps, generator: torch.Generator) -> None:
        super().__init__(steps)
        self.generator = generator
        of_type = [graph.edge_type == edge_type for edge_type in self.edge_types]
        edges = [np.stack([graph.source_index[one], graph.target_index[one]]) for one in of_type]
        self.count = torch.tensor([of_one.shape[1] for of_one in edges])
        self.start = self.count.cumsum(0) - self.count
        self.edges = torch.from_numpy(np.concatenate(edges, axis=1))
        # All nodes of a type in one stretch, so that a uniform draw is an offset.
        self.stretch = torch.cat([self.members[node_type] for node_type in graph.node_types])
        lengths_of = [len(self.members[node_type]) for node_type in graph.node_types]
        begin = dict(zip(graph.node_types, np.cumsum([0, *lengths_of[:-1]]).tolist(), strict=True))
        self.begin = torch.tensor([[begin[node_type] for node_type in pair] for pair in self.node_types]).T

    def weights(self, supervised: list[str], share: float) -> Tensor:
        """Chance of each edge type in a draw: ``share`` for the supervised ones alike, the rest by number of edges."""
        weight = (1 - share) * self.count / self.count.sum()
        at = [i for i, name in enumerate(self.edge_types) if name in supervised and self.count[i] > 0]
        weight[at] += share / max(len(at), 1)
        return weight

    def draw(self, n_edges: int, negatives: int, weight: Tensor) -> Draw:
        """``n_edges`` edges, then ``negatives`` uniform and as many degree-matched pairs for each of them.

        A negative is not checked against the edges: few are.
        """
        edge_type = torch.multinomial(weight, n_edges, replacement=True, generator=self.generator)
        of_negatives = edge_type.repeat(negatives)
        uniform = self.stretch[self.begin[:, of_negatives] + self._below(self.size[:, of_negatives])]
        # Both ends of edges, drawn apart: each in proportion to its degree.
        matched = torch.stack([self._some_edges(of_negatives)[0], self._some_edges(of_negatives)[1]])
        ends = torch.cat([self._some_edges(edge_type), uniform, matched], dim=1)
        label = torch.zeros(ends.shape[1])
        label[:n_edges] = 1
        return self._of(torch.cat([edge_type, of_negatives, of_negatives]), ends, label)

    def log_density(self, draw: Draw) -> Tensor:
        """Log of the negatives' density over that of uniform pairs [B]: half uniform, half in proportion to degree."""
        lift = self.degree[draw.slots] * self.size[:, draw.edge_type]
        total = torch.where(self.symmetric, 2, 1) * self.count
        return (0.5 + 0.5 * (lift / total[draw.edge_type]).prod(0)).log()

    def _some_edges(self, edge_type: Tensor) -> Tensor:
        """An edge of each edge type, its ends [2, B]; of a symmetric one in either direction."""
        ends = self.edges[:, self.start[edge_type] + self._below(self.count[edge_type])]
        turned = self.symmetric[edge_type] & (torch.rand(len(edge_type), generator=self.generator) < 0.5)
        return torch.where(turned, ends.flip(0), ends)

    def _below(self, limit: Tensor) -> Tensor:
        """Uniform integers below each limit."""
        return (torch.rand(limit.shape, generator=self.generator, dtype=torch.float64) * limit).long()


MOST_PAIRS = 300_000
"""Pairs scored at once: two embeddings of 64 for so many pairs are 150 MB."""


class _Net(nn.Module):
    """<e_s, w_m, e_t> + b_ms + b_mt + a_m log(d_s + .1) + a'_m log(d_t + .1) + c_m."""

    def __init__(self, draws: Slots, dim: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        n_edge_types = len(draws.edge_types)
        self.node = nn.Parameter(0.1 * torch.randn(draws.n_nodes, dim, generator=generator))
        self.relation = nn.Parameter(torch.ones(n_edge_types, dim))
        self.bias = nn.Parameter(torch.zeros(draws.n_slots, 1))
        self.slope = nn.Parameter(torch.ones(n_edge_types, 2))
        self.constant = nn.Parameter(torch.zeros(n_edge_types, 1))
        self.log_degree = (draws.degree + SMOOTHING).log()
        self.symmetric = draws.symmetric[:, None]

    def forward(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Log-odds of the candidates [B], and the squared length of their embeddings and biases [B]."""
        ends = functional.embedding(draw.ends, self.node)
        bias = functional.embedding(draw.slots, self.bias).squeeze(-1)
        # A product with a few one-hot columns: its backward is a product too, not a loop over candidates.
        edge_type = functional.one_hot(draw.edge_type, len(self.relation)).float()
        slope = torch.where(self.symmetric, self.slope[:, :1], self.slope)
        known = (self.log_degree[draw.slots].T * (edge_type @ slope)).sum(-1)
        product = (ends[0] * (edge_type @ self.relation) * ends[1]).sum(-1)
        score = product + bias.sum(0) + known + (edge_type @ self.constant).squeeze(-1)
        return score, ends.square().sum((0, 2)) + bias.square().sum(0)


@configurable
@dataclass(frozen=True)
class AdamOptions:
    """How long and how fast a baseline is trained.

    Attributes:
        lr: Learning rate at the start; it falls to 0 in a straight line.
        batch_size: Edges a step.
        steps: Steps of the optimizer.
        check_every: Steps between two looks at val.
    """

    lr: float = 0.01
    batch_size: int = 2048
    steps: int = 1000
    check_every: int = 100


class DistMult(LinkBaseline):
    """DistMult (Yang et al., ICLR 2015, arXiv:1412.6575) with node biases, trained on the edges of all edge types.

    Negatives are matched to the degrees and uniform, half and half. Their known density is taken out of the logits
    (noise-contrastive estimation), so that the score ranks all pairs. It starts from the degree product. How many
    steps serve is chosen on val.

    Args:
        dim: Width of the embedding.
        penalty: L2 on the embeddings and biases of the candidates of a step.
        share: Share of a step's edges that are drawn from the supervised edge types alike.
        negatives: Of each kind, an edge.
        adam: Rate, batches and steps.
        seed: Of the start and of what is drawn.
    """

    name = "distmult"
    fitted: dict[str, None]

    def __init__(
        self,
        dim: int = 64,
        penalty: float = 0.03,
        share: float = 0.15,
        negatives: int = 2,
        adam: AdamOptions = AdamOptions(),
        seed: int = 0,
    ) -> None:
        self.dim, self.penalty, self.share, self.negatives = dim, penalty, share, negatives
        self.adam, self.seed = adam, seed

    def prepare(self) -> None:
        """Where each end of a pair stands in the tables."""
        self.slots = Slots(self.steps)

    def state_dict(self) -> dict[str, Any]:
        """See ``Predictor``; also the network's weights, nodes by node type as they stand in a checkpoint's graph."""
        net = self._state()
        net["node"] = net["node"][torch.cat(list(self.slots.members.values()))]
        return super().state_dict() | {"net": {name: value.numpy() for name, value in net.items()}}

    def load_state_dict(self, state: Mapping[str, Any], graph: TypedGraph | None = None) -> Self:
        """See ``Predictor``."""
        super().load_state_dict(state, graph)
        self.net = _Net(self.slots, self.dim)
        self.net.load_state_dict({name: torch.from_numpy(value) for name, value in state["net"].items()})
        return self

    def train_on(self, train: Links, val: Links) -> None:
        """Train one network for all edge types."""
        generator = torch.Generator().manual_seed(self.seed)
        self.draws = EdgeDraws(train.graph, self.steps, generator)
        self.net = _Net(self.draws, self.dim, generator)
        choices = {m: Choice(self.steps, m, val.subset(val.edge_type == m)) for m in train.supervised}
        with one_thread():
            self._train(choices)

    def fit_one(self, edge_type: str, train: Links, val: Links) -> None:
        """Nothing more is fitted."""

    def _train(self, choices: dict[str, Choice]) -> None:
        optimizer = torch.optim.Adam(self.net.parameters(), lr=self.adam.lr, fused=True)
        weight = self.draws.weights(list(choices), self.share)
        best, kept, self.best_step = -np.inf, self._state(), 0
        for step in range(self.adam.steps + 1):
            if step % self.adam.check_every == 0 or step == self.adam.steps:
                values = [choice(self.score(m, None, choice.source, choice.target)) for m, choice in choices.items()]
                if (value := float(np.mean([v for v in values if np.isfinite(v)] or [-np.inf]))) > best:
                    best, kept, self.best_step = value, self._state(), step
            optimizer.param_groups[0]["lr"] = self.adam.lr * (1 - step / (self.adam.steps + 1))
            loss = self._loss(weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.net.load_state_dict(kept)

    def _loss(self, weight: Tensor) -> Tensor:
        """BCE of a batch of edges and their negatives, and the penalty; per edge, edges and negatives alike."""
        draw = self.draws.draw(self.adam.batch_size, self.negatives, weight)
        score, length = self.net(draw)
        logit = score - self.draws.log_density(draw)
        each = functional.binary_cross_entropy_with_logits(logit, draw.label, reduction="none")
        share = torch.where(draw.label > 0, 1.0, 0.5 / self.negatives)
        return ((each + self.penalty * length) * share).sum() / self.adam.batch_size

    def _state(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.net.state_dict().items()}

    @torch.no_grad()
    def score(self, edge_type: str, fitted: None, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """See ``LinkBaseline``."""
        score = np.zeros(len(source), dtype=np.float32)
        for low in range(0, len(source), MOST_PAIRS):
            part = slice(low, low + MOST_PAIRS)
            score[part] = self.net(self.slots.pairs(edge_type, source[part], target[part]))[0].numpy()
        return score


@dataclass(frozen=True, eq=False)
class _Fitted:
    """One edge type: its metapaths, how its features are scaled, and the regression."""

    paths: list[tuple[str, ...]]
    unit: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    weight: np.ndarray


class PathFeatures(LinkBaseline):
    """Logistic regression on the log of counted and of degree-weighted paths, and on log degrees.

    The metapaths are all those of at most three steps between the two node types, ``CtD`` itself left out; the degrees
    are those of both ends in every edge type. A training edge is looked at as if it were not in the graph: its own
    edge takes no part in its features, or they would be unlike those of a held-out edge. Its negatives are drawn
    from all pairs of the two node types.

    Args:
        penalties: Inverse strengths of the L2 penalty, chosen on val.
        damping: Exponent of the degrees in degree-weighted paths.
        metapaths: Per edge type the metapaths to use, each a list of steps (``CbG`` and back again ``CbG<``); a
            edge type that is not named has all.
        most_paths: Metapaths kept, those that tell training edges from other pairs best (by AUROC).
        most_edges: Training edges looked at, drawn at random where there are more.
        negatives: Other pairs a training edge, in all at most 50 thousand.
        seed: Of what is drawn.
    """

    name = "path_features"
    fitted: dict[str, _Fitted]

    def __init__(
        self,
        penalties: Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0),
        damping: float = 0.5,
        metapaths: Mapping[str, Sequence[Sequence[str]]] | None = None,
        most_paths: int = 24,
        most_edges: int = 2000,
        negatives: int = 50,
        seed: int = 0,
    ) -> None:
        self.penalties, self.damping, self.most_paths = penalties, damping, most_paths
        self.metapaths = metapaths or {}
        self.most_edges, self.negatives, self.seed = most_edges, negatives, seed

    def prepare(self) -> None:
        """Both ways to weigh a path."""
        self.features = MetapathFeatures(self.steps, self.damping)

    def fit_one(self, edge_type: str, train: Links, val: Links) -> _Fitted:
        """Features of training edges without themselves and of other pairs; the penalty on val."""
        rng = np.random.default_rng(self.seed)
        source, target = (self.steps.local[index[train.positive]] for index in (train.source_index, train.target_index))
        if len(source) > self.most_edges:
            kept = rng.choice(len(source), self.most_edges, replace=False)
            source, target = source[kept], target[kept]
        if self.steps.back(edge_type) == edge_type:  # which end is written first must not matter
            turned = rng.random(len(source)) < 0.5
            source, target = np.where(turned, target, source), np.where(turned, source, target)
        of = self.features
        others = of.other_pairs(edge_type, self.negatives * len(source), rng)
        paths = self._chosen(edge_type) or of.best_paths(edge_type, source, target, others, self.most_paths)
        counted = np.concatenate(
            [of.without_own(edge_type, paths, source, target), of.between(paths, others[0], others[1])]
        )
        label = np.arange(len(counted)) < len(source)
        unit = np.maximum(counted.mean(0), 1e-12)
        degrees = [
            of.degrees(edge_type, source, target, own=1),
            of.degrees(edge_type, others[0], others[1], own=0),
        ]
        x = np.concatenate([np.log1p(counted / unit), np.concatenate(degrees)], axis=1)
        center, scale = x.mean(0), np.maximum(x.std(0), 1e-6)
        choice = Choice(self.steps, edge_type, val)
        seen = np.log1p(of.between(paths, choice.source, choice.target) / unit)
        seen = np.concatenate([seen, of.degrees(edge_type, choice.source, choice.target, own=0)], axis=1)
        best, chosen = -np.inf, np.zeros(x.shape[1])
        for penalty in self.penalties:
            with one_thread():
                model = LogisticRegression(C=penalty, class_weight="balanced", max_iter=1000)
                weight = model.fit((x - center) / scale, label).coef_[0]
            value = choice(((seen - center) / scale) @ weight)
            if value > best:
                best, chosen = value, weight
        return _Fitted(paths, unit, center, scale, chosen)

    def score(self, edge_type: str, fitted: _Fitted, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """See ``LinkBaseline``; log-odds but for a constant, of a symmetric edge type the mean of both directions."""
        score = self._score_one_way(edge_type, fitted, source, target)
        if self.steps.back(edge_type) == edge_type:
            score = (score + self._score_one_way(edge_type, fitted, target, source)) / 2
        return score

    def _score_one_way(self, edge_type: str, fitted: _Fitted, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Feature by feature, so that none is in memory for all pairs, and each start is visited once."""
        weight, n_counts = fitted.weight / fitted.scale, 2 * len(fitted.paths)
        score = np.full(len(source), -float(fitted.center @ weight))
        column = n_counts
        for node_type, at, _ in self.features.ends(edge_type, source, target):
            steps = self.steps.leaving(node_type)
            logs = np.stack([np.log(self.steps.degree(step) + SMOOTHING) for step in steps], axis=1)
            score += (logs @ weight[column : column + len(steps)])[at]
            column += len(steps)
        for reverse, at, start, number, end in by_rows(source, target):
            ways = turned(fitted.paths, self.steps) if reverse else fitted.paths
            for k, counts in enumerate(self.features.counts):
                for i, counted in counts.between(ways, start, number, end):
                    column = k * len(fitted.paths) + i
                    score[at] += weight[column] * np.log1p(counted / fitted.unit[column])
        return score

    def _chosen(self, edge_type: str) -> list[tuple[str, ...]]:
        """The metapaths that the config names for an edge type; none where it names none."""
        chosen = sorted(tuple(path) for path in self.metapaths.get(edge_type, ()))
        paths = self.features.paths(edge_type)
        if unknown := [path for path in chosen if path not in paths]:
            raise InputError(f"{edge_type} has no metapath {some(unknown)}; there are {some(paths, most=30)}")
        return chosen
