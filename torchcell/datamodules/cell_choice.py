"""The cells, conditions and genes of a file that a run works on; ``select-genes`` chooses by the same function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchcell.data.conditions import Conditions
from torchcell.data.gene_selection import GeneSelection, SelectedGenes
from torchcell.datamodules.base import drawn
from torchcell.splits.methods import make_split


def chosen(
    record: Conditions,
    split: Mapping[str, Any],
    *,
    n_genes: int | None,
    max_cells: int | None,
    selection: GeneSelection | None,
    subset: int | None,
) -> tuple[Conditions, SelectedGenes | None]:
    """The conditions that are left of ``record``, and the genes that their training part chooses, if any are chosen.

    Nothing depends on the run's seed: runs of one split are scored on the same cells.

    Args:
        record: All conditions over all genes.
        split: Keys of the ``split`` config.
        n_genes: Genes in all, also of a ``selection`` that does not say.
        max_cells: Cells in all; none: all of them.
        selection: Chooses the genes; none: the most variable ``n_genes``, or all of them.
        subset: Number of conditions, drawn by the split's seed; none: all of them.

    Raises:
        InputError: A selection of another number of genes than ``n_genes``, or what its parts refuse.
    """
    if max_cells is not None:
        record = record.limited(max_cells)
    record = drawn(record, subset, split)
    if selection is None and n_genes is None:
        return record, None
    train = record.subset(make_split(record, **split).index("train"))
    return record, (selection or GeneSelection()).within(n_genes)(train)
