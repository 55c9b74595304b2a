"""``threads_kept``: numba, which scanpy calls, hands OpenMP all cores and leaves it so; torch takes what OpenMP has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def threads_kept() -> Iterator[None]:
    """Afterwards torch computes with as many threads as before.

    With others it rounds otherwise: processes that share a training would not hold the same weights to the last bit.
    """
    import torch

    kept = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(kept)
