"""Many sets in runs whose temporary tensors fit a budget; beyond it they are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

BUDGET = 1e9
"""Bytes that the temporary tensors of a batch may take before they are computed again in the backward pass."""


def in_runs(
    work: Callable[[Tensor, Tensor], Tensor],
    node_K: Int[Tensor, " K"],
    ptr_P: Int[Tensor, " P"],
    cost_B: Float[Tensor, " B"],
    run_bytes: float | None = None,
) -> Float[Tensor, "B D"]:
    """``work`` on all sets, or on one run of sets after the other.

    Args:
        work: Gives one row a set from members and pointers; each set's row must depend on that set alone.
        node_K: Members of all sets [K].
        ptr_P: Pointers [B + 1].
        cost_B: Estimated bytes of each set [B].
        run_bytes: Of one run, less than ``BUDGET`` where smaller runs are faster.

    Returns:
        The rows of all sets [B, D].
    """
    runs = list(_cut(cost_B, min(run_bytes or BUDGET, BUDGET)))
    if len(runs) <= 1:
        return work(node_K, ptr_P)
    again, rows = torch.is_grad_enabled() and float(cost_B.sum()) > BUDGET, []
    for first, last in runs:
        span = slice(int(ptr_P[first]), int(ptr_P[last]))
        arguments = node_K[span], ptr_P[first : last + 1] - ptr_P[first]
        rows.append(checkpoint(work, *arguments, use_reentrant=False) if again else work(*arguments))
    return torch.cat(rows)


def _cut(cost_B: Tensor, most: float) -> Iterator[tuple[int, int]]:
    """Runs of sets that together cost no more than ``most`` bytes; one set at least."""
    done = torch.cat([cost_B.new_zeros(1), cost_B.double().cumsum(0)]).cpu()
    first = 0
    while first < len(cost_B):
        last = int(torch.searchsorted(done, done[first] + most, right=True)) - 1
        last = min(max(last, first + 1), len(cost_B))
        yield first, last
        first = last
