"""torchcell predicts what a perturbation does to a cell.

In a notebook::

    import torchcell as tc

    run = tc.fit("simulated_cgt", "trainer.max_epochs=5")  # an experiment and Hydra overrides
    run = tc.load("runs/simulated_cgt/0a1b2c3d-s0")        # a run's folder, or a checkpoint
    run.predict(["A|B"])                                   # a list, DataFrame or AnnData
    tc.judge(df, benchmark="costanzo2010")                 # what another program predicted

Importing the package loads nothing heavy: each name is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchcell.api import records as records
    from torchcell.api.judge import judge as judge
    from torchcell.api.run import Run as Run
    from torchcell.api.run import load as load
    from torchcell.api.start import fit as fit

__version__ = "0.2.0"

__all__ = ["Run", "__version__", "fit", "judge", "load", "records"]

_HOMES = {"Run": "run", "fit": "start", "judge": "judge", "load": "run", "records": ""}
"""Module of ``torchcell.api`` that holds each name; none: it is that module."""


def __getattr__(name: str) -> Any:
    """Import a name of the API when it is first used."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'torchcell' has no attribute {name!r}; it has {', '.join(__all__)}")
    home = importlib.import_module(f"torchcell.api.{_HOMES[name] or name}")
    found = globals()[name] = getattr(home, name) if _HOMES[name] else home
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
