"""Small cells, sets and transformers that the tests of the cell graph transformer share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch
from model_options import with_options
from small_specs import screen_spec

from torchcell.graph.cell_graph import CellGraph
from torchcell.io.gene_features import GeneFeatures
from torchcell.screen.datamodule import PerturbationBatch
from torchcell.screen.models.cell_graph_transformer.model import CellGraphTransformer
from torchcell.screen.record import KINDS
from torchcell.screen.spec import ScreenSpec

N = 24
SETS = [(0, 1), (2, 3, 4), (5,), (6, 7, 8, 9)]
COLUMNS = [f"f{i}" for i in range(8)]


def make_spec(
    kinds: Sequence[str] = ("absent",),
    outputs: Sequence[str] = ("epsilon",),
    task: str = "regression",
    features: bool = True,
    n: int = N,
    center: float = 0.4,
    scale: float = 2.0,
) -> ScreenSpec:
    """Two random networks among ``n`` genes, of which the last four were never trained."""
    genes, matrices = tuple(f"g{i}" for i in range(n)), {}
    for seed, name in enumerate(("physical", "coexpression")):
        half = sp.random(n, n, density=0.1, random_state=seed)
        matrices[name] = sp.csr_matrix(half + half.T)
    if task == "binary":
        center, scale = 0.0, 1.0
    scaler = torch.full((len(outputs),), center), torch.full((len(outputs),), scale)
    more: dict = {"trained_genes": torch.arange(n - 4)}
    if features:
        values = torch.randn(n, len(COLUMNS), generator=torch.Generator().manual_seed(0))
        more["gene_features"] = GeneFeatures(np.array(genes), tuple(COLUMNS), values.numpy())
    return screen_spec(task, outputs, genes, kinds, *scaler, CellGraph(genes, matrices), **more)


def make_batch(sets, kind="absent", outputs=1, target=None, level=None) -> PerturbationBatch:
    """Sets by their members' positions."""
    gene = torch.tensor([gene for members in sets for gene in members])
    ptr = torch.tensor([0, *np.cumsum([len(members) for members in sets]).tolist()])
    kinds = torch.full_like(gene, KINDS.index(kind)) if isinstance(kind, str) else torch.tensor(kind)
    if target is None:
        target = torch.randn(len(sets), outputs, generator=torch.Generator().manual_seed(3))
    level = torch.full(gene.shape, float("nan")) if level is None else level
    return PerturbationBatch(gene=gene, ptr=ptr, kind=kinds, level=level, target=target, sample=torch.arange(len(sets)))


def make(
    spec: ScreenSpec | None = None, seed: int = 0, model: type[CellGraphTransformer] = CellGraphTransformer, **choices
) -> CellGraphTransformer:
    """Two layers of two heads, without dropout."""
    torch.manual_seed(seed)
    small = {"encoder__dim": 32, "encoder__heads": 2, "encoder__dropout": 0.0}
    return model(spec or make_spec(), **with_options(model, small | choices))


def total(model: CellGraphTransformer, batch: PerturbationBatch) -> torch.Tensor:
    """The objective of one step."""
    return torch.stack(list(model.losses(batch, model(batch)).values())).sum()


def with_graph(spec: ScreenSpec, **matrices: np.ndarray) -> ScreenSpec:
    """The same cell with other networks."""
    held = {name: sp.csr_matrix(matrix.astype(np.float32)) for name, matrix in matrices.items()}
    return dataclasses.replace(spec, graph=CellGraph(spec.genes, held))


def fit(model: CellGraphTransformer, batch: PerturbationBatch, steps: int, lr: float = 1e-2) -> list[float]:
    """Losses of some steps on one batch."""
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=lr), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = total(model, batch)
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    return losses
