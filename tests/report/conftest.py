from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from torchcell.evaluation.results import Results


@pytest.fixture(scope="session")
def make_results() -> Callable[..., Results]:
    """A model, a constant, a silent baseline and a ceiling on one planted phenotype."""

    def make(task: str = "regression", n: int = 120, outputs: tuple[str, ...] = ("epsilon",), **changes) -> Results:
        rng = np.random.default_rng(0)
        measured = rng.normal(size=(n, len(outputs)))
        net = 0.8 * measured + 0.3 * rng.normal(size=measured.shape)
        if task == "binary":
            measured, net = (measured > 0.5).astype(float), 1 / (1 + np.exp(-net))
        given = {
            "sample_id": np.array([f"s{i}" for i in range(n)]),
            "group": np.array([f"g{i % 30}" for i in range(n)]),
            "outputs": outputs,
            "measured": measured,
            "systems": {
                "Net": net,
                "mean": np.full_like(measured, measured.mean()),
                "ridge": 0.5 * net + 0.4 * rng.normal(size=net.shape),
                "silent": np.full_like(measured, np.nan),
                "twin": measured + 0.1 * rng.normal(size=measured.shape),
            },
            "task": task,
            "model": "Net",
            "ceiling": "twin",
            "set_size": rng.integers(2, 5, n),
        }
        return Results(**(given | changes))

    return make


@pytest.fixture(scope="session")
def history() -> pd.DataFrame:
    """Ten epochs with two loss terms."""
    epoch = np.arange(10)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "train/loss": 1.0 / (1 + epoch),
            "val/loss": 1.2 / (1 + epoch),
            "val/score": 1 - 1.0 / (1 + epoch),
            "val/epsilon/Pearson": 1 - 1.0 / (1 + epoch),
            "train/share/phenotype": np.linspace(0.04, 0.6, 10),
            "train/share/graph": np.linspace(0.96, 0.4, 10),
        }
    )
