"""What a trained model makes of sets, genes and the cell: the pass over them, and the tables it becomes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from torchcell.core.batch import BatchOrder, Packed, PackedLoader
from torchcell.core.model import Model
from torchcell.core.prior import Prior
from torchcell.core.spec import Spec
from torchcell.evaluation.results import Results
from torchcell.io.errors import InputError, some
from torchcell.io.progress import track
from torchcell.report.maps import latent_section
from torchcell.report.sections import Section
from torchcell.training import build, checkpoint

if TYPE_CHECKING:
    import anndata

    from torchcell.core.datamodule import RecordDataModule


MOST_IN_REPORT = 2_000
"""Sets whose latents a report draws: enough to see shapes, few enough to cost a blink."""


@dataclass(frozen=True, eq=False)
class Sets:
    """The samples to embed.

    Attributes:
        record: n of them, with names.
        packed: Tensors that hold them.
        index: Their positions in ``packed``, int64 [n].
        measured: Measured values [n] by phenotype, as far as they are known.
        part: Part of the run's split [n]; none for sets of a user's own.
        dropped: Counts of what was left out.
    """

    record: Any
    packed: Packed
    index: Tensor
    measured: dict[str, np.ndarray]
    part: np.ndarray | None
    dropped: dict[str, int]


@dataclass(frozen=True, eq=False)
class Embedded:
    """What the pass gives: latents [n, D] by name, the first one leading; and predictions [n, T]."""

    latents: dict[str, np.ndarray]
    prediction: np.ndarray


def own_sets(
    saved: checkpoint.Checkpoint, part: str | None, trust: Sequence[str] = (), data_changed: str = "error"
) -> Sets:
    """The samples of the run itself, rebuilt from the config in its checkpoint.

    Args:
        saved: The checkpoint.
        part: One of the split's parts; none for all of them.
        trust: Further packages whose classes the config may name.
        data_changed: ``allow`` data that changed since training, else ``error``.

    Raises:
        InputError: Data that changed, an unknown or empty part.
    """
    data = build.datamodule_of(saved, trust, data_changed)
    index = np.arange(len(data.sample_id)) if part is None else data.split.index(part)
    if not len(index):
        raise InputError(f"part={part}: the split has no sample there ({data.split.counts()})")
    record = data.record_whole.subset(index)
    target = np.asarray(record.target, dtype=np.float32)
    measured = {name: target[:, i] for i, name in enumerate(data.spec.outputs)}
    return Sets(record, data.packed, torch.from_numpy(index), measured, data.split.part[index], {})


def asked_sets(path: str, spec: Spec, representation: Any, unknown_genes: str, prior: Prior | None = None) -> Sets:
    """The samples that a user names in a file; columns called like the model's outputs are measured values.

    Args:
        path: CSV or parquet, as ``predict`` reads it.
        spec: Of the model; its genes may have been added to.
        representation: The datamodule's class, which knows how to read and pack a request.
        unknown_genes: ``error``, or ``drop`` the sets that name a gene the model does not know.
        prior: The model's, if it has one.
    """
    asked = representation.read_request(path, spec)
    record, dropped = representation.filter_known(asked, spec.genes, unknown_genes)
    if not len(record):
        raise InputError(f"{path}: no row is left to embed ({dropped or 'the file is empty'})")
    columns = getattr(record, "columns", {})
    numbers = {name: columns[name] for name in spec.outputs if name in columns}
    measured = {name: value.astype(np.float32) for name, value in numbers.items() if value.dtype.kind in "fib"}
    packed = representation.pack(record, spec)
    if prior is not None:
        packed.prior = prior.predict(record)
    return Sets(record, packed, torch.arange(len(record)), measured, None, dropped)


def embed_sets(model: Model, batches: Iterable[Any], device: torch.device | str, predict: bool = True) -> Embedded:
    """Run the model over ``batches``, without gradients and without talking to other processes.

    Args:
        model: In whatever mode and place; both are as before when this returns.
        batches: Of a loader.
        device: Where to compute.
        predict: Whether to predict too; otherwise the predictions are empty.

    Returns:
        Latents and predictions; no latents, after the first batch, from a model that tells nothing of its sets.
    """
    trained, place = model.training, model.device
    model.eval().to(device)
    latents: dict[str, list[Tensor]] = {}
    predictions: list[Tensor] = []
    with torch.no_grad():
        for batch in batches:
            batch = batch.blind().to(device)
            if predict:  # first: it refuses what the model was not trained for
                predictions.append(model.tabulate(model(batch)).float().cpu())
            found = model.set_embeddings(batch)
            if not found:
                break
            for name, x_BD in found.items():
                latents.setdefault(name, []).append(x_BD.float().cpu())
    model.to(place).train(trained)
    prediction = torch.cat(predictions).numpy() if predictions else np.zeros((0, 0), dtype=np.float32)
    return Embedded({name: torch.cat(parts).numpy() for name, parts in latents.items()}, prediction)


def report_latents(
    model: Model,
    data: RecordDataModule,
    results: Results,
    device: torch.device | str,
    umap: bool = False,
    seed: int = 0,
) -> list[Section]:
    """The report's map of the scored part; nothing from a model that tells nothing of its sets.

    Args:
        model: With the weights that were scored.
        data: The data with its split.
        results: Of the part that was scored, in the split's order.
        device: Where to compute.
        umap: Whether to draw a UMAP beside the PCA.
        seed: Of the choice of sets and of the UMAP.
    """
    index, n = data.split.index(results.part), len(results)
    chosen = np.sort(np.random.default_rng(seed).permutation(n)[:MOST_IN_REPORT])
    order = BatchOrder(torch.from_numpy(index[chosen]), shuffle=False)
    found = embed_sets(model, PackedLoader(data.packed, order, data.eval_batch_size), device, predict=False)
    measured = {output: np.asarray(results.measured)[chosen, i] for i, output in enumerate(results.outputs)}
    first = list(found.latents.items())[:1]
    names = [str(one) for one in np.asarray(results.sample_id, dtype=object)[chosen]]
    return [latent_section(name, x_ND, measured, results.part, n, umap, seed, names) for name, x_ND in first]


def loader(sets: Sets, batch_size: int) -> Iterable[Any]:
    """Batches of the sets in their order, under a progress bar."""
    return track(PackedLoader(sets.packed, BatchOrder(sets.index, shuffle=False), batch_size), "embed")


def set_table(sets: Sets, found: Embedded, spec: Spec, representation: Any) -> anndata.AnnData:
    """Sets as rows, the leading latent as ``X``, further ones in ``obsm``.

    Args:
        sets: n samples.
        found: What the model makes of them.
        spec: Of the model.
        representation: The datamodule's class, which knows how to name a sample.
    """
    import anndata

    answer = representation.to_table(sets.record, found.prediction, spec)
    about = answer.drop(columns=["sample_id", *spec.outputs])
    if sets.part is not None:
        about["part"] = sets.part.astype(str)
    columns = {**sets.measured, **{f"predicted {name}": answer[name].to_numpy() for name in spec.outputs}}
    obs = pd.concat([about, pd.DataFrame(columns, index=about.index)], axis=1)
    obs.index = pd.Index(answer["sample_id"].astype(str), name="sample_id")
    (first, x_ND), *others = found.latents.items()
    odd = ~np.isfinite(x_ND).all(1)
    if odd.any():
        raise InputError(f"the latent {first} of {int(odd.sum())} set(s) is not finite: {some(obs.index[odd])}")
    table = anndata.AnnData(X=x_ND, obs=obs, var=_numbered(first, x_ND.shape[1]))
    table.obsm.update(dict(others))
    table.uns["latent"] = first
    return table


def gene_table(model: Model) -> anndata.AnnData | None:
    """Genes as rows, the leading latent as ``X``, further ones in ``obsm``; none where the model has none.

    ``obsm["features"]`` holds the gene features the model reads, a pattern for the columns of ``added_genes``.
    """
    import anndata

    with torch.no_grad():
        latents = {name: x_ND.detach().float().cpu().numpy() for name, x_ND in model.gene_embeddings().items()}
    if not latents:
        return None
    genes = model.spec.genes
    (first, x_ND), *others = latents.items()
    obs = pd.DataFrame(index=pd.Index(list(genes), name="gene"))
    for name, values in model.spec.gene_facts().items():
        obs[name] = values
    table = anndata.AnnData(X=x_ND, obs=obs, var=_numbered(first, x_ND.shape[1]))
    table.obsm.update(dict(others))
    table.uns["latent"] = first
    read = model.spec.gene_features
    if read is not None:
        table.obsm["features"] = pd.DataFrame(read.values, index=obs.index, columns=list(read.columns))
    return table


def cell_latents(model: Model) -> dict[str, np.ndarray]:
    """What the model makes of the whole wild type, name -> [D]."""
    with torch.no_grad():
        return {name: x_D.detach().float().cpu().numpy() for name, x_D in model.cell_embeddings().items()}


def _numbered(name: str, width: int) -> pd.DataFrame:
    return pd.DataFrame(index=pd.Index([f"{name}_{i}" for i in range(width)]))
