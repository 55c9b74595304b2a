"""The heterogeneous graph transformer the usual way: every edge's key, query and value side by side."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from torchcell.graph.cell_graph import CSR
from torchcell.nn.hgt import TypedHGT

Lists = list[tuple[Tensor, Tensor]]
"""Sources and targets of each relation, counted within their node types, int64 [E] each."""


def edge_lists(csrs: Sequence[CSR]) -> Lists:
    """What a layer on edge lists reads."""
    found = []
    for indptr, indices, _ in csrs:
        rows = torch.arange(len(indptr) - 1)
        found.append((indices.long(), torch.repeat_interleave(rows, indptr.diff(), output_size=len(indices))))
    return found


def concatenating(layer: TypedHGT, x_ND: Tensor, bounds: Sequence[int], edges: Lists) -> Tensor:
    """The layer's formula with its own weights; keys and values of all relations and all edges are concatenated."""
    spans = [slice(a, b) for a, b in itertools.pairwise(bounds)]
    parts = zip(spans, layer.project, layer.project_bias, strict=True)
    rows = torch.cat([x_ND[at] @ w + b for at, w, b in parts]).unflatten(1, (3, layer.heads, -1))
    query, key, value = rows.unbind(1)
    seen, sent, source, target, before = [], [], [], [], 0
    for r, (first, last) in enumerate(layer.relations):
        matrix = layer.attend[r] * layer.prior[r][:, None, None]
        seen.append(torch.einsum("nhd,hde->nhe", key[spans[first]], matrix))
        sent.append(torch.einsum("nhd,hde->nhe", value[spans[first]], layer.send[r]))
        source.append(edges[r][0] + before)
        target.append(edges[r][1] + bounds[last])
        before += len(seen[-1])
    source_E, target_E = torch.cat(source), torch.cat(target)
    key_EHD, value_EHD = torch.cat(seen)[source_E], torch.cat(sent)[source_E]
    score_EH = (query[target_E] * key_EHD).sum(-1) / query.shape[-1] ** 0.5
    at_EH = target_E[:, None].expand_as(score_EH)
    floor_NH = score_EH.new_full((len(x_ND), layer.heads), -torch.inf)
    peak_NH = floor_NH.scatter_reduce(0, at_EH, score_EH.detach(), "amax")
    raised_EH = (score_EH - peak_NH[target_E]).exp()
    total_NH = torch.zeros_like(floor_NH).index_add(0, target_E, raised_EH)
    message_EHD = (raised_EH / total_NH[target_E])[:, :, None] * value_EHD
    heard_ND = torch.zeros_like(query).index_add(0, target_E, message_EHD).flatten(1)
    parts = zip(spans, layer.out, layer.out_bias, strict=True)
    y_ND = torch.cat([torch.nn.functional.gelu(heard_ND[at]) @ w + b for at, w, b in parts])
    gate_N1 = torch.cat([s.sigmoid().expand(at.stop - at.start) for at, s in zip(spans, layer.gate, strict=True)])
    return gate_N1[:, None] * y_ND + (1 - gate_N1[:, None]) * x_ND
