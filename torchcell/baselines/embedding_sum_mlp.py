"""A learned embedding per perturbed gene, summed over the set, then a small MLP."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from torchcell.baselines.base import Baseline, one_thread, require_same_genes, validation_score
from torchcell.baselines.pairs import Items
from torchcell.data.screen import Screen
from torchcell.graph.cell_graph import CellGraph


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


class EmbeddingSumMLP(Baseline):
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
        """See ``Baseline``."""
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
        item, ptr = self._members(train), torch.from_numpy(train.ptr)
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
        held = ~target.isnan()
        # A missing value adds nothing; filled before the difference, since 0 * NaN is NaN in the gradient.
        filled = torch.where(held, target, prediction.detach())
        if self.binary:
            each = nn.functional.binary_cross_entropy_with_logits(prediction, filled, reduction="none")
        else:
            each = (prediction - filled).square()
        return (each * held).sum() / held.sum().clamp(min=1)

    @torch.no_grad()
    def predict(self, record: Screen) -> np.ndarray:
        """See ``Baseline``."""
        require_same_genes(record, self.items.genes)
        self.net.eval()
        raw = self.net(self._members(record), torch.from_numpy(record.ptr))
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
