"""A step of the gene-set transformer against the number of genes: dense scores, full, sparse and induced attention.

Four cells, d = 64, 2 layers of 4 heads, 16 neighbors a gene; forward and backward. ``dense scores`` writes out the
matrix of each head, as code does that masks it to be sparse; ``full`` is torch's fused kernel, which keeps no matrix
and is therefore linear in memory too, but quadratic in time. Memory is the most bytes of tensors at once, above what
stood before, from torch's own record of allocations: the resident set sees only large steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from target import Target, at_least, at_most
from torch import Tensor, nn

from torchcell.cells.models.gene_set_transformer.attention import (
    EncoderOptions,
    GeneSetEncoder,
    TokenAttention,
    seen_tokens,
)
from torchcell.graph.cell_graph import CSR
from torchcell.training.profile import tensor_megabytes

DIM, LAYERS, HEADS, NEIGHBOURS, GLOBAL, CELLS = 64, 2, 4, 16, 2, 4
GENES = (200, 500, 1_000, 2_500, 5_000)
LARGE = GENES[-1]
COMPARED = (1_000, LARGE)
"""Genes where precision and checkpointing are taken too."""
DENSE_UP_TO = 1_000
"""Genes up to which dense scores are taken with all cells at once; beyond, one cell, taken so many times."""


def run() -> list[Target]:
    """Time and memory by genes, the slope of sparse attention, and what precision and checkpointing change."""
    torch.manual_seed(0)
    ways = ("dense scores", "full", "neighbors", "induced")
    rows = {(way, n): measured(way, n) for n in GENES for way in ways if (way, n) != ("dense scores", 2_500)}
    _show(f"by genes, {CELLS} cells", rows)
    extra = {
        (f"{way}{', checkpointing' * checkpointing}{', bf16' * half}", n): measured(way, n, checkpointing, half)
        for n in COMPARED
        for way in _PLAIN
        for checkpointing, half in ((True, False), (False, True), (True, True))
        if way == "neighbors" or not half  # torch's kernel for bf16 is very slow on a CPU that has none
    }
    _show("against the plain run", {key: rows[key] for key in rows if key[1] in COMPARED and key[0] in _PLAIN} | extra)
    memory = np.array([rows["neighbors", n][1] for n in GENES])
    slope, start = np.polyfit(GENES, memory, 1)
    off = np.abs(slope * np.array(GENES) + start - memory).max() / memory.max()
    last = {way: rows[way, LARGE] for way in ("dense scores", "full", "neighbors")}
    at = f"at {LARGE:,} genes"
    leaner = last["dense scores"][1] / last["neighbors"][1]
    faster = last["full"][0] / last["neighbors"][0]
    kilobytes = f"{1e3 * slope / CELLS:.1f} kB a gene and cell"
    return [
        at_least(f"sparse attention against dense scores {at}: memory", leaner, 8),
        at_least(f"sparse attention against the fused full kernel {at}: time", faster, 2),
        at_most(
            f"sparse attention against the fused full kernel {at}: memory",
            last["neighbors"][1] / last["full"][1],
            1.05,
            "of it",
        ),
        at_most(f"sparse attention's memory off a line, {kilobytes}: largest gap", off, 0.05, "of the most"),
        at_most("sparse attention against dense under one mask, float32", _gap(), 1e-5, ""),
    ]


_PLAIN = ("full", "neighbors")


class DenseAttention(TokenAttention):
    """The same, with the scores of all pairs written out."""

    def forward(self, x_CTD: Tensor, seen: CSR | None = None) -> Tensor:
        qkv = self.query_key_value(x_CTD).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
        return self.output(y.transpose(1, 2).flatten(2))


def encoder(way: str, checkpointing: bool = False) -> GeneSetEncoder:
    """With random weights."""
    kind = "full" if way == "dense scores" else way
    model = GeneSetEncoder(EncoderOptions(DIM, LAYERS, HEADS, attention=kind, gradient_checkpointing=checkpointing))
    if way == "dense scores":
        for layer in model.layers:
            layer.attention = DenseAttention(DIM, HEADS)
    return model


def lists(n_genes: int) -> Tensor:
    """Random neighbors [G, K]."""
    return torch.randint(n_genes, (n_genes, NEIGHBOURS))


def measured(way: str, n_genes: int, checkpointing: bool = False, half: bool = False) -> tuple[float, float]:
    """Seconds of the processor, as others share it, and megabytes of a step."""
    many = CELLS if way == "dense scores" and n_genes > DENSE_UP_TO else 1
    model = encoder(way, checkpointing)
    x_CTD = torch.randn(CELLS // many, GLOBAL + n_genes, DIM, requires_grad=True)
    seen = seen_tokens(lists(n_genes), torch.arange(n_genes), GLOBAL) if way == "neighbors" else None
    step = _step(model, x_CTD, seen, half)
    step()
    memory = tensor_megabytes(step, torch.device("cpu"))
    taken = []
    for _ in range(1 if n_genes > DENSE_UP_TO else 3):
        start = time.process_time()
        step()
        taken.append(time.process_time() - start)
    return many * min(taken), many * memory


def _step(model: nn.Module, x_CTD: Tensor, seen: CSR | None, half: bool) -> Callable[[], None]:
    def step() -> None:
        model.zero_grad()
        x_CTD.grad = None
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            loss = model(x_CTD, seen).square().mean()
        loss.backward()

    return step


def _gap() -> float:
    """Largest difference of sparse and masked dense attention, relative to the largest entry."""
    n, layer = 600, TokenAttention(DIM, HEADS)
    seen, x = seen_tokens(lists(n), torch.arange(n), GLOBAL), torch.randn(2, GLOBAL + n, DIM)
    allowed = torch.ones(GLOBAL + n, GLOBAL + n, dtype=torch.bool)
    allowed[GLOBAL:] = False
    row = torch.repeat_interleave(torch.arange(n), seen.indptr.diff())
    allowed[GLOBAL + row, seen.indices.long()] = True
    with torch.no_grad():
        q, k, v = layer.query_key_value(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~allowed, -torch.inf)
        wanted = layer.output((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return float((layer(x, seen) - wanted).abs().max() / wanted.abs().max())


def _show(title: str, rows: dict[tuple[str, int], tuple[float, float]]) -> None:
    table = Table(
        title=f"attention within cells, d = {DIM}, {LAYERS} layers, {HEADS} heads, {title}, "
        f"{torch.get_num_threads()} thread(s)",
        title_justify="left",
    )
    for column in ("way", "genes", "s a step", "peak MB"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for (way, n_genes), (taken, memory) in rows.items():
        table.add_row(way, f"{n_genes:,}", f"{taken:,.2f}", f"{memory:,.0f}")
    Console(width=120).print(table)
