"""``python -m torchcell.predict``: gene names in, a named table out; the checkpoint alone is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchcell.run.entry import run_entry

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig


def predict(cfg: DictConfig) -> pd.DataFrame:
    """Predict every row of ``cfg.perturbations`` and write the table to ``cfg.out``."""
    from pathlib import Path

    import torch
    from rich.console import Console

    from torchcell.data.cache import atomic_write
    from torchcell.data.errors import InputError
    from torchcell.datamodules.batch import BatchOrder, PackedLoader
    from torchcell.run import checkpoint
    from torchcell.run.progress import track

    out = Path(cfg.out)
    writers = {".parquet": "to_parquet", ".csv": "to_csv"}
    if out.suffix not in writers:
        raise InputError(f"out={out}: the name must end in {' or '.join(writers)}")
    saved = checkpoint.load(cfg.ckpt)
    model, representation = saved.model(cfg.trust), saved.datamodule_class(cfg.trust)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device)

    asked = representation.read_request(cfg.perturbations, saved.spec)
    record, lost = representation.admit(asked, saved.spec.genes, cfg.unknown_genes)
    if not len(record):
        raise InputError(f"{cfg.perturbations}: no row is left to predict ({lost or 'the file is empty'})")
    packed = representation.pack(record, saved.spec)
    loader = PackedLoader(packed, BatchOrder(torch.arange(len(record)), shuffle=False), cfg.batch_size)
    with torch.inference_mode():
        parts = [model.predict_step(batch.to(device))[1].cpu() for batch in track(loader, "predict")]
    table = representation.response(record, torch.cat(parts).numpy(), saved.spec)
    with atomic_write(out) as temporary:
        getattr(table, writers[out.suffix])(temporary, index=False)
    console = Console()
    for what, n in lost.items():
        console.print(f"left out: {n:,} {what}", highlight=False)
    console.print(table.head(5).to_string(index=False), soft_wrap=True, highlight=False)
    console.print(f"wrote {len(table):,} predictions to {out}", soft_wrap=True, highlight=False)
    return table


if __name__ == "__main__":
    run_entry(predict, "predict")
