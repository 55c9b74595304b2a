"""All that is wrong with the table of a drug response, for ``data check``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torchcell.data.checks import column, flags
from torchcell.data.errors import InputError, some
from torchcell.data.h5ad import read_h5ad
from torchcell.data.perturbation_labels import controls_in
from torchcell.data.response import COLUMNS
from torchcell.data.response_columns import NAMES, TreatmentColumns
from torchcell.data.response_file import FLAG


def response_faults(path: Path, columns: Mapping[str, str]) -> list[str]:
    """All that is wrong with the table of a drug response, each once; the reader stops at the first."""
    adata, wrong = read_h5ad(path), []
    table = adata.obs

    def columns_found() -> TreatmentColumns:
        found = TreatmentColumns(path.stem, table, columns, table.index.to_numpy().astype(str))
        found.refuse_missing(COLUMNS)
        return found

    looks: list[Callable[[], object]] = [lambda: columns_found().amounts()]
    if FLAG in table:
        looks.append(lambda: flags(path.stem, FLAG, column(path.stem, table, FLAG)))
    for look in looks:
        try:
            look()
        except InputError as error:
            wrong.append(str(error))
    if FLAG not in table and "control" not in adata.layers:
        drug = columns.get("drug") or next(name for name in NAMES["drug"] if name in table)
        said = f"{path} tells no controls: it has neither a layer 'control' nor a column {FLAG!r} in obs"
        likely = controls_in(table[drug])
        remedy = f"adata.obs[{FLAG!r}] = adata.obs[{drug!r}].isin({likely})"
        wrong.append(f"{said}; " + (f"the wells of {some(likely)} look like them: {remedy}" if likely else "add one"))
    return wrong
