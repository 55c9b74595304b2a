"""Records from objects in Python, checked as a file would be: ``tc.records.screen(df)``, ``tc.records.cells(adata)``.

``tc.fit`` trains on them. They are then written beside the runs, named by their content, so that ``evaluate``,
``embed`` and ``reproduce`` find the data again.
"""

from __future__ import annotations

import hashlib
import inspect
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchcell.io.errors import InputError, near, some
from torchcell.io.in_memory import InMemory, is_cells

if TYPE_CHECKING:
    import anndata
    import pandas as pd
    from omegaconf import DictConfig

FOLDER = "records"
"""Below the folder of runs."""
DIGITS = 12
"""Of the hash of a file's content that its name holds."""


@dataclass(frozen=True, eq=False)
class Records:
    """Data of your own that passed the checks of their task.

    Attributes:
        data: The choice of ``data=`` in the config: ``screen`` or ``cells``.
        record: As models see them.
        source: What they were made of.
        keys: What was set of ``data.record``.
        shown: What they are, in a line.
    """

    data: str
    record: Any
    source: InMemory
    keys: Mapping[str, Any]
    shown: str

    def __len__(self) -> int:
        return len(self.record)

    def __repr__(self) -> str:
        return self.shown

    def put_into(self, cfg: DictConfig) -> None:
        """Write the source beside the runs of ``cfg``, and let ``cfg.data.record`` read it from there."""
        cfg.data.record.update({**self.keys, "path": str(self._write(Path(cfg.paths.runs) / FOLDER))})

    def _write(self, folder: Path) -> Path:
        """A file that is named by its content; the same content is written once."""
        folder.mkdir(parents=True, exist_ok=True)
        ending = ".parquet" if self.source.is_table else ".h5ad"
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            draft = Path(scratch) / f"draft{ending}"
            if self.source.is_table:
                import pyarrow.parquet as pq

                pq.write_table(self.source.to_arrow(), draft)
            else:
                self.source.content.write_h5ad(draft)
            path = folder / f"{self.source.name}-{_hash(draft)}{ending}"
            # Where it is there already, what is known of the file by its time stays known.
            if not path.is_file() or path.is_symlink() or _hash(path) != _hash(draft):
                draft.replace(path)
        return path


def screen(df: pd.DataFrame, **keys: Any) -> Records:
    """A screen: one row a set of perturbed genes, one column of numbers a phenotype.

    Args:
        df: The column ``genes`` (joined by ``|``, or a list each), at will ``types``, ``levels``, ``query`` and
            ``sample_id``; the other columns of numbers are phenotypes, see ``torchcell.screen.table.read_screen``.
        **keys: Of ``data.record`` in ``conf/data/screen.yaml``: ``phenotypes``, ``task``.

    Raises:
        InputError: All that is wrong with the rows and columns, or an unknown key.

    Example:
        >>> import pandas as pd
        >>> import torchcell as tc
        >>> tc.records.screen(pd.DataFrame({"genes": ["A|B", "A", "B"], "fitness": [0.4, 0.8, 0.9]}))
        3 samples of a screen, 2 genes; phenotypes fitness
    """
    import pandas as pd

    from torchcell.screen.table import read_screen

    if not isinstance(df, pd.DataFrame):
        raise InputError(f"tc.records.screen takes a DataFrame, not {type(df).__name__}; of a file use data=screen")
    source: Any = InMemory(df, "screen")
    record = read_screen(source, **_known(keys, read_screen))
    sizes = f"{len(record):,} samples of a screen, {len(record.genes):,} genes"
    return Records("screen", record, source, keys, f"{sizes}; phenotypes {', '.join(record.phenotype_names)}")


def cells(
    adata: anndata.AnnData, control: str | list[str] | None = None, scale: str = "counts", **keys: Any
) -> Records:
    """Single cells, perturbed and control.

    Args:
        adata: Expression in ``X``; ``obs`` with a column ``perturbation`` (``A``, ``A+B``) and at will covariates.
        control: Label of the control cells, or several; none: ``obs`` holds the flag ``is_control``.
        scale: What the values are, ``counts`` or ``lognorm``; checked.
        **keys: Further ones of ``data.record`` in ``conf/data/cells.yaml``: ``columns``, ``covariates``, ``name``, and
            ``matrix`` and ``conditions`` as dictionaries.

    Raises:
        InputError: All that is wrong with the cells, or an unknown key.

    Example:
        >>> import anndata, numpy as np, pandas as pd
        >>> import torchcell as tc
        >>> obs = pd.DataFrame({"perturbation": ["ctrl"] * 20 + ["STAT1"] * 10}, index=[f"c{i}" for i in range(30)])
        >>> counts = np.random.default_rng(0).poisson(3.0, (30, 4)).astype("float32")
        >>> adata = anndata.AnnData(counts, obs, pd.DataFrame(index=["STAT1", "IRF1", "JAK2", "ACTB"]))
        >>> tc.records.cells(adata, control="ctrl")
        30 cells, 4 measured genes; 1 perturbed conditions
    """
    from torchcell.cells.table import ConditionOptions, MatrixOptions, cells_file

    if not is_cells(adata):
        raise InputError(f"tc.records.cells takes an AnnData, not {type(adata).__name__}; of a file use data=cells")
    source: Any = InMemory(adata, "cells")
    keys = {"control": control, "scale": scale, **keys}
    grouped = {"matrix": MatrixOptions, "conditions": ConditionOptions}
    arguments = {
        key: grouped[key](**_known(value, grouped[key])) if key in grouped else value for key, value in keys.items()
    }
    record = cells_file(source, **_known(arguments, cells_file))
    sizes = f"{len(record.cells):,} cells, {len(record.cells.genes):,} measured genes"
    return Records("cells", record, source, keys, f"{sizes}; {len(record):,} perturbed conditions")


def _known(keys: Mapping[str, Any], reader: Callable[..., Any]) -> dict[str, Any]:
    """The keys, where the reader has them all."""
    valid = [name for name in inspect.signature(reader).parameters if name != "path"]
    if unknown := sorted(set(keys) - set(valid)):
        raise InputError(f"no key {some(unknown)}; the nearest are {near(unknown[0], valid) or valid}")
    return dict(keys)


def _hash(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]
