"""Learned baselines of screens: a network on summed embeddings, gradient boosting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.utils.extmath import randomized_svd
from torch import Tensor, nn

from torchcell.core.predictor import Predictor, one_thread, validation_score
from torchcell.graph.cell_graph import CellGraph, unit_rows
from torchcell.graph.neighborhood import adjacencies, neighborhoods, rows_of
from torchcell.screen.baselines import MOST_SAMPLES, AdditiveRidge, measured, of_unknown_genes, over_genes
from torchcell.screen.baselines_fitted import Items, SetPairs
from torchcell.screen.record import KINDS, Screen


class _Net(nn.Module):
    """EmbeddingBag (sum) over (gene, kind), then one hidden layer."""

    def __init__(self, n_items: int, dim: int, hidden: int, n_outputs: int) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(n_items, dim, mode="sum", include_last_offset=True)
        nn.init.normal_(self.embedding.weight)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, n_outputs))

    def forward(self, item: Tensor, ptr: Tensor) -> Tensor:
        out: Tensor = self.mlp(self.embedding(item, ptr))
        return out


class EmbeddingSumMLP(Predictor):
    """MLP(sum over the set of e[gene, kind]), AdamW, early stopping on val; logistic for a binary task.

    Args:
        dim: Width of the embedding.
        hidden: Width of the MLP.
        lr: Learning rate.
        weight_decay: Decoupled weight decay, embeddings included: they overfit otherwise.
        batch_size: Samples a step.
        max_epochs: At most.
        patience: Epochs without a better validation score.
        seed: Of start and batch order.
    """

    name = "embedding_sum_mlp"
    most_samples = MOST_SAMPLES
    items: Items
    binary: bool
    center_T: np.ndarray
    scale_T: np.ndarray

    def __init__(
        self,
        dim: int = 64,
        hidden: int = 256,
        lr: float = 5e-3,
        weight_decay: float = 0.5,
        batch_size: int = 1024,
        max_epochs: int = 40,
        patience: int = 4,
        seed: int = 0,
    ) -> None:
        self.dim, self.hidden, self.lr, self.weight_decay = dim, hidden, lr, weight_decay
        self.batch_size, self.max_epochs, self.patience, self.seed = batch_size, max_epochs, patience, seed

    def fit(self, train: Screen, val: Screen, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        self.items, self.binary = Items.of(train), train.task == "binary"
        n_outputs = train.phenotype.shape[1]
        with np.errstate(invalid="ignore"):
            scale = [(np.nanmean(y), np.nanstd(y) or 1.0) if not np.isnan(y).all() else (0.0, 1.0)
                     for y in train.phenotype.T]  # fmt: skip
        self.center_T, self.scale_T = np.array(scale, dtype=np.float32).T
        if self.binary:
            self.center_T, self.scale_T = np.zeros(n_outputs, np.float32), np.ones(n_outputs, np.float32)
        target = torch.from_numpy((train.phenotype - self.center_T) / self.scale_T)
        # The seed rules this block only; the caller's random state is untouched.
        with torch.random.fork_rng(devices=[]), one_thread():
            torch.manual_seed(self.seed)
            self.net = _Net(len(self.items), self.dim, self.hidden, n_outputs)
            unseen = np.setdiff1d(np.arange(len(self.items)), self._members(train).numpy())
            with torch.no_grad():
                self.net.embedding.weight[unseen] = 0  # a gene without training values adds nothing, not noise
            self._train(train, val, target)
        return self

    def _train(self, train: Screen, val: Screen, target: Tensor) -> None:
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        best_score, waited = -np.inf, 0
        best = {name: value.clone() for name, value in self.net.state_dict().items()}
        item, ptr = self._members(train), torch.tensor(train.ptr)
        for _ in range(self.max_epochs):
            self.net.train()
            for index in torch.randperm(len(train)).split(self.batch_size):
                loss = self._loss(self.net(*_take(item, ptr, index)), target[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            prediction = self.predict(val)
            scores = [validation_score(y, p, train.task) for y, p in zip(val.phenotype.T, prediction.T, strict=True)]
            score = float(np.mean([s for s in scores if np.isfinite(s)] or [-np.inf]))
            if score > best_score:
                best_score, waited = score, 0
                best = {name: value.clone() for name, value in self.net.state_dict().items()}
            else:
                waited += 1
                if waited >= self.patience:
                    break
        self.net.load_state_dict(best)

    def _loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        has_value = ~target.isnan()
        # A missing value adds nothing; filled before the difference, since 0 * NaN is NaN in the gradient.
        filled = torch.where(has_value, target, prediction.detach())
        if self.binary:
            each = nn.functional.binary_cross_entropy_with_logits(prediction, filled, reduction="none")
        else:
            each = (prediction - filled).square()
        return (each * has_value).sum() / has_value.sum().clamp(min=1)

    def state_dict(self) -> dict[str, Any]:
        """See ``Predictor``; also the network's weights."""
        return super().state_dict() | {"net": {name: value.numpy() for name, value in self.net.state_dict().items()}}

    def load_state_dict(self, state: Mapping[str, Any], graph: Any = None) -> Self:
        """See ``Predictor``."""
        super().load_state_dict(state)
        self.net = _Net(len(self.items), self.dim, self.hidden, len(self.center_T))
        self.net.load_state_dict({name: torch.from_numpy(value) for name, value in state["net"].items()})
        return self

    @torch.no_grad()
    def predict(self, record: Screen) -> np.ndarray:
        """See ``Predictor``; NaN also for a set with a gene that the screen does not have."""
        record = over_genes(record, self.items.genes)
        unknown = of_unknown_genes(record, len(self.items.genes))
        if unknown.any():
            prediction = np.full((len(record), len(self.center_T)), np.nan, dtype=np.float32)
            prediction[~unknown] = self.predict(record.subset(~unknown))
            return prediction
        self.net.eval()
        raw = self.net(self._members(record), torch.tensor(record.ptr))
        prediction = raw.sigmoid().numpy() if self.binary else raw.numpy() * self.scale_T + self.center_T
        prediction[record.owner[self.items.position[record.kind] < 0]] = np.nan
        return prediction

    def _members(self, record: Screen) -> Tensor:
        """Item of each member of all sets [M], sorted within each set so that order cannot matter."""
        item = record.gene * self.items.n_kinds + np.maximum(self.items.position[record.kind], 0)
        return torch.from_numpy(item[np.lexsort((item, record.owner))])


def _take(item: Tensor, ptr: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Members and pointer of the samples ``index``."""
    size = ptr[index + 1] - ptr[index]
    start = torch.cat([ptr.new_zeros(1), size.cumsum(0)])
    member = torch.arange(int(start[-1])) + (ptr[index] - start[:-1]).repeat_interleave(size)
    return item[member], start


@dataclass(frozen=True, eq=False)
class Trees:
    """Regression trees that are added up, as arrays over all their nodes; the first node of each is its root.

    Attributes:
        base: What is added to, the mean of what was fitted.
        root: First node of each tree, int64 [K].
        feature: Column that a node asks for, int64 [nodes].
        threshold: Up to here the left child is next, float64 [nodes].
        missing_left: Whether it is for a missing value, bool [nodes].
        left: Left child; a leaf leads to itself, int64 [nodes].
        right: Right child; likewise.
        value: What a leaf adds, float64 [nodes].
        depth: Steps from a root to the farthest leaf.
    """

    base: float
    root: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    missing_left: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    depth: int

    @classmethod
    def of(cls, model: HistGradientBoostingRegressor, n_trees: int) -> Trees:
        """The first trees of a fitted regressor of numbers."""
        nodes = [predictor.nodes for (predictor,) in model._predictors[:n_trees]]
        sizes = [len(one) for one in nodes]
        root = np.cumsum([0, *sizes[:-1]], dtype=np.int64)
        every, first = np.concatenate(nodes), np.repeat(root, sizes)
        leaf, own = every["is_leaf"].astype(bool), np.arange(sum(sizes))
        return cls(
            base=float(np.ravel(model._baseline_prediction)[0]),
            root=root,
            feature=every["feature_idx"].astype(np.int64),
            threshold=every["num_threshold"].astype(np.float64),
            missing_left=every["missing_go_to_left"].astype(bool),
            left=np.where(leaf, own, every["left"] + first),
            right=np.where(leaf, own, every["right"] + first),
            value=every["value"].astype(np.float64),
            depth=int(every["depth"].max(initial=0)),
        )

    def predict(self, x_nF: np.ndarray) -> np.ndarray:
        """The sum of one leaf of each tree, float64 [n]."""
        total, row = np.full(len(x_nF), self.base), np.arange(len(x_nF))
        x_nF = x_nF.astype(np.float64)
        for root in self.root.tolist():
            node = np.full(len(x_nF), root)
            for _ in range(self.depth):
                value = x_nF[row, self.feature[node]]
                goes_left = np.where(np.isnan(value), self.missing_left[node], value <= self.threshold[node])
                node = np.where(goes_left, self.left[node], self.right[node])
            total += self.value[node]
        return total


class GradientBoosting(Predictor):
    """Histogram gradient boosting of what the additive ridge leaves, over features free of the set's order.

    Per set: its size; members per kind; mean and largest log degree in each relation; mean, spread and
    pairwise product of an SVD of the genes' neighborhoods; over its pairs, mean and largest edge weight in
    each relation, and the mean and largest cosine of neighborhoods. NaN without a graph.

    Args:
        dim: Width of the SVD.
        max_iter: Trees grown; how many of them serve is chosen on val.
        learning_rate: Shrinkage of each tree.
        max_leaf_nodes: Leaves a tree.
        min_samples_leaf: Training samples a leaf.
        seed: Of the SVD.
    """

    name = "gradient_boosting"
    most_samples = MOST_SAMPLES
    n_outputs: int
    genes: np.ndarray
    degree: np.ndarray
    svd: np.ndarray
    additive: AdditiveRidge | None
    fitted: list[Trees | None]

    def __init__(
        self,
        dim: int = 16,
        max_iter: int = 150,
        learning_rate: float = 0.1,
        max_leaf_nodes: int = 31,
        min_samples_leaf: int = 50,
        seed: int = 0,
    ) -> None:
        self.dim, self.max_iter, self.learning_rate = dim, max_iter, learning_rate
        self.max_leaf_nodes, self.min_samples_leaf, self.seed = max_leaf_nodes, min_samples_leaf, seed

    def fit(self, train: Screen, val: Screen, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        self.n_outputs, self.genes, self.fitted, self.additive = train.phenotype.shape[1], train.genes, [], None
        self.degree = self.svd = np.empty((0, 0))
        if graph is None:
            return self
        self._read(graph)
        index = graph.index(train.genes)
        degrees = [np.diff(matrix.indptr).astype(float) for _, matrix in adjacencies(graph)]
        degree = np.where(index[:, None] >= 0, np.log1p(np.stack(degrees, 1))[index], np.nan)
        with one_thread():
            self.degree, self.svd = degree, _svd(self.near, self.dim, self.seed)
        self.additive = AdditiveRidge().fit(train, val, None)
        x_train, x_val = self._features(train), self._features(val)
        for t in range(train.phenotype.shape[1]):
            self.fitted.append(self._fit_one(x_train, train, x_val, val, t))
        return self

    def _read(self, graph: CellGraph) -> None:
        """What the features take from the graph as it is: neighborhoods, and edges by the positions of their ends."""
        index = graph.index(self.genes)
        self.near = unit_rows(neighborhoods(graph, self.genes))
        self.edges = [rows_of(rows_of(matrix, index).T.tocsr(), index).T.tocsr() for _, matrix in adjacencies(graph)]

    def load_state_dict(self, state: Mapping[str, Any], graph: CellGraph | None = None) -> Self:
        """See ``Predictor``."""
        super().load_state_dict(state)
        if self.additive is not None:
            if graph is None:
                raise ValueError("gradient_boosting was fitted on a graph, and there is none")
            self._read(graph)
        return self

    def _fit_one(self, x_train: np.ndarray, train: Screen, x_val: np.ndarray, val: Screen, t: int) -> Trees | None:
        """Grow all trees on the training residuals; how many of them serve is chosen on val."""
        has_value = measured(train, t)
        if not has_value.any():
            return None
        assert self.additive is not None
        residual = (train.phenotype - self.additive.predict(train))[has_value, t]
        model = HistGradientBoostingRegressor(
            max_iter=self.max_iter,
            learning_rate=self.learning_rate,
            max_leaf_nodes=self.max_leaf_nodes,
            min_samples_leaf=self.min_samples_leaf,
            early_stopping=False,
            random_state=self.seed,
        )
        base, truth = self.additive.predict(val)[:, t], val.phenotype[:, t]
        with one_thread():
            model.fit(x_train[has_value], residual)
            stages = [validation_score(truth, base + boost, train.task) for boost in model.staged_predict(x_val)]
        return Trees.of(model, int(np.argmax(stages)) + 1)

    def predict(self, record: Screen) -> np.ndarray:
        """See ``Predictor``; NaN also for a set with a gene that the screen does not have."""
        prediction = np.full((len(record), self.n_outputs), np.nan)
        if self.additive is not None:
            known = ~of_unknown_genes(over_genes(record, self.genes), len(self.genes))
            record = record.subset(known)
            x, found = self._features(record), self.additive.predict(record).astype(np.float64)
            for t, trees in enumerate(self.fitted):
                if trees is not None:
                    found[:, t] += trees.predict(x)
            prediction[known] = found
        return prediction.astype(np.float32)

    def _features(self, record: Screen) -> np.ndarray:
        """Features of each set, float32 [n, F]."""
        record = over_genes(record, self.genes)
        kinds = np.zeros((len(record), len(KINDS)))
        np.add.at(kinds, (record.owner, record.kind), 1)
        # Members in sorted order: addition of floats does depend on order.
        order = np.lexsort((record.gene, record.owner))
        gene, start = record.gene[order], record.ptr[:-1]
        mean = np.add.reduceat(self.svd[gene], start) / record.sizes[:, None]
        square = np.add.reduceat(self.svd[gene] ** 2, start) / record.sizes[:, None]
        spread = np.sqrt(np.maximum(square - mean**2, 0))
        degree = self.degree[gene]
        known = np.maximum(np.add.reduceat(~np.isnan(degree), start).astype(float), 1)
        blocks = [record.sizes[:, None], kinds, mean, spread, mean**2 - spread**2]
        blocks += [np.add.reduceat(np.nan_to_num(degree), start) / known]
        blocks += [np.fmax.reduceat(degree, start), np.fmin.reduceat(degree, start)]
        return np.concatenate([*blocks, *self._pair_features(record)], axis=1).astype(np.float32)

    def _pair_features(self, record: Screen) -> list[np.ndarray]:
        """Mean and largest value over the pairs of each set; 0 for a single gene, which has none."""
        items = Items(self.genes, np.zeros(len(KINDS), dtype=np.int64))
        pairs = SetPairs.of(record, items)
        inside = pairs.right < len(self.genes)
        owner, left, right = pairs.owner[inside], pairs.left[inside], pairs.right[inside]
        values = [np.asarray(matrix[left, right]).ravel() for matrix in self.edges]
        values.append(np.asarray(self.near[left].multiply(self.near[right]).sum(1)).ravel())
        value = np.stack(values, axis=1).astype(np.float64)
        mean, largest = (np.zeros((len(record), value.shape[1])) for _ in range(2))
        np.add.at(mean, owner, value)
        np.maximum.at(largest, owner, value)
        count = np.bincount(owner, minlength=len(record))[:, None]
        return [mean / np.maximum(count, 1), largest]


def _svd(near: sp.csr_matrix, dim: int, seed: int) -> np.ndarray:
    """The first principal axes of the neighborhoods [genes, dim]."""
    u, s, _ = randomized_svd(near, n_components=min(dim, *near.shape), random_state=seed)
    # Beyond six digits stands rounding noise, which a tree would split on where an axis is constant.
    return (u * s).astype(np.float64).round(6)
