"""Small sets of cells for the models' tests: specs and batches without a datamodule."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from torchcell.cells.batch import CellSetBatch, DenseRows
from torchcell.cells.spec import CellsSpec, TrainedPerturbations
from torchcell.core.batch import SharedRows
from torchcell.io.gene_features import GeneFeatures


def cell_spec(genes=24, unmeasured=2, features=5, neighbors=None, seed=0, **more) -> CellsSpec:
    """Random features of all genes; ``neighbors``: how many each measured gene has, the last of them a pad."""
    draw = torch.Generator().manual_seed(seed)
    names = tuple(f"g{i}" for i in range(genes + unmeasured))
    held = {
        "groups": ("A", "B"),
        "change_center": torch.zeros(genes),
        "covariates": (),
        "control_words": (),
        "trained_perturbations": TrainedPerturbations((), ()),
        "input_scale": "lognorm",
        "library": None,
        "pseudobulk": False,
        "set_size": 3,
        "input_cells": 3,
        "eval_sets": 1,
        "gene_center": torch.rand(genes, generator=draw) + 0.5,
        "gene_scale": torch.full((genes,), 0.5),
        "change_scale": torch.full((genes,), 0.3),
    }
    if features:
        values = torch.randn(len(names), features, generator=draw)
        columns = tuple(f"f{i}" for i in range(features))
        held["gene_features"] = GeneFeatures(np.array(names), columns, values.numpy())
    if neighbors:
        lists = torch.stack([torch.randperm(genes, generator=draw)[:neighbors] for _ in range(genes)])
        lists[:, -1] = -1
        held["neighbors"] = lists
    center = held["gene_center"]
    base = ("cells", names[:genes], names, (), center, torch.ones(genes), None, "hash")
    return CellsSpec(*base, **(held | more))


def cell_batch(spec: CellsSpec, n=6, cells=3, seed=1, targets: list[list[int]] | None = None) -> CellSetBatch:
    """n sets; without ``targets`` each perturbs one or two genes of the vocabulary."""
    draw = torch.Generator().manual_seed(seed)
    if targets is None:
        picks = torch.randint(len(spec.genes), (n, 2), generator=draw).tolist()
        targets = [pick[: 1 + i % 2] for i, pick in enumerate(picks)]
    gene = torch.tensor([gene for each in targets for gene in each], dtype=torch.int64)
    ptr = torch.tensor([0, *(len(each) for each in targets)]).cumsum(0)
    n, shape = len(targets), (len(targets), cells, len(spec.outputs))
    control = (spec.center + 0.5 * torch.randn(shape, generator=draw)).clamp(min=0)
    perturbed = (control.flip(1) + effect(spec, gene, ptr)[:, None]).clamp(min=0)
    group = torch.randint(2, (n,), generator=draw)
    halves = [SharedRows(control.mean(1), torch.arange(n))] * 2
    cells_of = (DenseRows(control), DenseRows(perturbed))
    return CellSetBatch(perturbed.mean(1), torch.arange(n), *cells_of, gene, ptr, group, *halves)


def effect(spec: CellsSpec, gene: Tensor, ptr: Tensor) -> Tensor:
    """A planted change that is linear in the features of the perturbed genes and adds up over them [B, G]."""
    draw = torch.Generator().manual_seed(7)
    held = spec.gene_features
    rows = torch.eye(len(spec.genes)) if held is None else torch.from_numpy(held.values)
    table = rows @ torch.randn(rows.shape[1], len(spec.outputs), generator=draw) / rows.shape[1] ** 0.5
    members = [table[gene[a:b]].sum(0) for a, b in zip(ptr[:-1].tolist(), ptr[1:].tolist(), strict=True)]
    return 0.3 * torch.stack(members)
