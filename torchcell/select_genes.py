"""``python -m torchcell.data select-genes``: choose genes as a run would, and write where each came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from torchcell.training.entry import run_entry

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from torchcell.cells.gene_selection import SelectedGenes


def select_genes(cfg: DictConfig) -> SelectedGenes:
    """Select on the training conditions of ``cfg.split``, print a table of the sources, write ``cfg.out``."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf
    from rich.table import Table

    from torchcell.cells.curriculum import describe_phases, entry_phase, find_phases
    from torchcell.cells.gene_selection import chosen
    from torchcell.io.console import Console
    from torchcell.io.errors import InputError
    from torchcell.io.paths import refuse_unwritable

    if OmegaConf.select(cfg, "data.genes.selection") is None and cfg.data.get("n_genes") is None:
        raise InputError("these data choose no genes; set data.genes.selection, as data=kang2018 does, or data.n_genes")
    refuse_unwritable(cfg.out, "out")
    split = cast("dict[str, Any]", OmegaConf.to_container(cfg.split, resolve=True))
    record, selected = chosen(
        instantiate(cfg.data.record).validate(),
        split,
        n_genes=cfg.data.n_genes,
        max_cells=cfg.data.max_cells,
        selection=instantiate(cfg.data.genes.selection),
        subset=cfg.data.subset,
    )
    assert selected is not None
    table = Table()
    table.add_column("source")
    table.add_column("genes", justify="right")
    for name, count in selected.counts().items():
        table.add_row(name, f"{count:,}")
    console = Console(markup=False)
    told = f"{len(selected):,} of {len(record.genes):,} genes of {record.name}"
    console.print(told, soft_wrap=True, highlight=False)
    console.print(table)
    for note in selected.notes:
        console.print(f"note    {note}", soft_wrap=True, highlight=False)
    given = cfg.data.genes.get("phases")
    phases = [] if given is None else find_phases(given, selected.genes.tolist())
    about = describe_phases(entry_phase(phases, len(selected)), selected.source)
    for number, (phase, added) in enumerate(zip(phases, about, strict=False)):
        told = f"phase {number}  {len(phase.genes):,} genes: {added.name}"
        console.print(told, soft_wrap=True, highlight=False)
    selected.save(cfg.out, phases)
    console.print(f"wrote {cfg.out}", soft_wrap=True, highlight=False)
    return selected


if __name__ == "__main__":
    run_entry(select_genes, "select_genes")
