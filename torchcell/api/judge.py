"""``judge``: score predictions that another program made, as a run's model is scored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchcell.api.outcome import Outcome
from torchcell.io.in_memory import in_memory

if TYPE_CHECKING:
    from torchcell.core.foreign import Values


def judge(
    predictions: Any,
    *overrides: str,
    benchmark: str,
    name: str = "predictions",
    columns: Mapping[str, str] | None = None,
    layer: str | None = None,
    values: Values = "level",
    out: str | Path | None = None,
) -> Outcome:
    """Score predictions beside the baselines of a benchmark, on its split, with the same checks and verdict as a run.

    Args:
        predictions: A DataFrame (screens: ``genes``, joined by ``|``, and a column a phenotype, or ``prediction``), an
            AnnData (cells: ``perturbation`` in ``obs``; drugs: ``drug``, ``cell_line``, ``dose_value``, ``time``), or a
            file of either. Rows for other samples than those of the part are left out and counted.
        *overrides: As on the command line, e.g. ``split=query_disjoint``, ``split.fold=1``.
        benchmark: Name of the data, see ``conf/benchmark``.
        name: Of the system in the table.
        columns: Our name of a column -> yours.
        layer: Of an AnnData; none: ``X``.
        values: ``level``, in the units of the data, or ``change`` from the control, to which the measured one is added.
        out: Folder for tables and page; none: ``runs/BENCHMARK/judged-NAME-<hash of the split>``.

    Raises:
        InputError: An unknown name; predictions that can't be read, or none of this part; all that is wrong at once.

    Example:
        >>> import pandas as pd
        >>> import torchcell as tc
        >>> from torchcell.screen.simulate import simulated_screen
        >>> screen = simulated_screen(n_genes=540, n_sets=400)
        >>> genes = ["|".join(one) for one in screen.sets()]
        >>> table = pd.DataFrame({"genes": genes, "prediction": screen.phenotype[:, 0] + 0.1})
        >>> small = ("data.record.n_sets=400", "baselines=none", "evaluation.n_boot=60")
        >>> found = tc.judge(table, *small, benchmark="simulated_cell")
        >>> found.metrics["system"].unique().tolist()
        ['predictions', 'replicate_ceiling']
    """
    from torchcell.core.foreign import ForeignColumns
    from torchcell.training.entry import composed, refuse_missing
    from torchcell.training.judge import Judgment
    from torchcell.training.judge import judge as judged

    cfg = composed("config", [f"benchmark={benchmark}", *overrides])
    refuse_missing(cfg)
    how = ForeignColumns(dict(columns or {}), layer, values)
    given = in_memory(predictions, (), "predictions")
    _, folder = judged(cfg, Judgment(given, how, name, None if out is None else Path(out), benchmark))
    return Outcome(folder)
