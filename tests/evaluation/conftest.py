from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from torchcell.evaluation.results import Results


@pytest.fixture
def make_results() -> Callable[..., Results]:
    """Results of systems given as correlation-like strengths (or arrays) on one planted phenotype."""

    def make(n: int = 400, n_clusters: int = 80, seed: int = 0, task: str = "regression", **systems) -> Results:
        rng = np.random.default_rng(seed)
        options = {key: systems.pop(key) for key in list(systems) if key in ("model", "ceiling", "measured", "group")}
        signal = rng.normal(size=(n, 1))
        measured = options.pop("measured", (signal > 0.5).astype(float) if task == "binary" else signal)
        predicted = {
            name: value if isinstance(value, np.ndarray) else value * signal + rng.normal(size=(n, 1)) * 0.5
            for name, value in systems.items()
        }
        return Results(
            sample_id=np.array([f"s{i}" for i in range(n)]),
            group=options.pop("group", np.array([f"g{i % n_clusters}" for i in range(n)])),
            outputs=("fitness",),
            measured=measured,
            systems=predicted,
            task=task,
            model=options.pop("model", next(iter(predicted))),
            **options,
        )

    return make
