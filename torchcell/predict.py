"""``python -m torchcell.predict``: gene names in, a named table out; the checkpoint alone is enough.

Of a knowledge graph: links in, or one node in and its most likely partners out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchcell.training.entry import run_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    import anndata
    import numpy as np
    import pandas as pd
    from omegaconf import DictConfig
    from torch import Tensor

    from torchcell.core.datamodule import RecordDataModule
    from torchcell.core.model import Model
    from torchcell.core.spec import Spec
    from torchcell.io.console import Console
    from torchcell.training.checkpoint import Checkpoint


WRITERS = (".parquet", ".csv")

PROFILES = ".h5ad"
"""Ending of a file of predicted expression."""

NOTE = "note"
"""Column that says of a prediction what the model never met."""

MOST_COLUMNS = 10
"""Of a table that is printed."""

WEIGHTS = 2**24
"""Weights on genes that are held at once: 64 MB."""


@dataclass(frozen=True)
class Request:
    """What is to be predicted, and how.

    Attributes:
        perturbations: File, or table or cells in memory, of the rows to predict.
        system: Who answers: the model, or a baseline of its run by name.
        columns: Our name of a column -> the request's.
        controls: The user's control cells, and how they are read: the keys of ``torchcell.cells.table.Controls``.
        unknown_genes: ``error``, or ``drop`` the rows that name a gene the model does not know.
        added_genes: Table of further genes and their features.
        batch_size: Samples at once; none: the representation's.
        top_genes: How many genes that the model looked at are written for each row; none: no such table.
        trust: Further packages whose classes the checkpoint may name.
    """

    perturbations: Any
    system: str = "model"
    columns: Mapping[str, str] | None = None
    controls: Mapping[str, Any] | None = None
    unknown_genes: str = "error"
    added_genes: Any = None
    batch_size: int | None = None
    top_genes: int | None = None
    trust: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Answer:
    """The predictions of a request.

    Attributes:
        table: A row a prediction, with a column of what of it the model never met.
        column: Name of that column.
        notes: What is in it, by topic.
        record: The rows as they were read [n].
        prediction: Of them [n, T].
        dropped: Counts of what was left out.
        spec: Of the model, with names from the request.
        representation: The datamodule's class.
        attended: Weights and positions of the genes that were looked at most, a batch each.
    """

    table: pd.DataFrame
    column: str
    notes: dict[str, list[str]]
    record: Any
    prediction: np.ndarray
    dropped: Mapping[str, int]
    spec: Spec
    representation: type[RecordDataModule]
    attended: list[tuple[Tensor, Tensor]]

    @property
    def remarks(self) -> list[str]:
        """What was left out, and what is to be known of the rows as they were read."""
        dropped = {**getattr(self.record, "dropped", {}), **self.dropped}
        left_out = [f"left out: {n:,} {what}" for what, n in dropped.items()]
        return [*left_out, *(f"note: {one}" for one in getattr(self.record, "notes", ()))]

    def profiles(self) -> anndata.AnnData:
        """Predicted expression with the notes in ``obs``; an error for a phenotype."""
        found = self.representation.profiles(self.record, self.prediction, self.spec)
        found.obs[self.column] = self.table[self.column].to_numpy()
        return found


def answer(saved: Checkpoint, wanted: Request) -> Answer:
    """What a checkpoint's model, or a baseline of its run, predicts; nothing is written.

    Raises:
        InputError: A request that does not fit the model, a row that can't be read, or no row at all.
    """
    import numpy as np

    from torchcell.core.prediction_notes import joined
    from torchcell.io.errors import InputError
    from torchcell.training.baselines import MODEL, saved_baseline
    from torchcell.training.predict import TrainedModel

    spec = saved.spec if wanted.added_genes is None else saved.spec_with(wanted.added_genes, wanted.trust)
    representation = saved.datamodule_class(wanted.trust)
    request = representation.read_request(wanted.perturbations, spec, **_read_with(wanted, representation))
    known, spec = spec, representation.extend_spec(request, spec)
    attended: list[tuple[Tensor, Tensor]] = []
    predict_record: Callable[[Any], np.ndarray]
    system: Any
    if wanted.system == MODEL:
        n, system = wanted.top_genes, saved.model(wanted.trust, spec)
        look = None if n is None else lambda batch: attended.append(looked_at(system, batch, n))
        prior = saved.prior(wanted.trust)
        predict_record = TrainedModel(system, spec, representation, prior, wanted.batch_size, look).predict
    else:
        system = saved_baseline(saved, wanted.system, tuple(wanted.trust))

        def predict_record(record: Any) -> np.ndarray:
            return system.predict(record.blind())

    record, dropped = representation.filter_known(request, spec.genes, wanted.unknown_genes)
    if not len(record):
        raise InputError(f"{wanted.perturbations}: no row is left to predict ({dropped or 'the file is empty'})")
    notes = representation.prediction_notes(record, known, system)
    prediction = predict_record(record)
    silent = np.isnan(prediction).any(1)
    notes[f"no prediction of {wanted.system}"] = [f"{wanted.system} has none" if one else "" for one in silent.tolist()]
    table = representation.to_table(record, prediction, spec)
    column = NOTE if NOTE not in table else f"prediction_{NOTE}"  # a phenotype may have the name
    table[column] = joined(notes, len(table))
    return Answer(table, column, notes, record, prediction, dropped, spec, representation, attended)


def predict(cfg: DictConfig) -> pd.DataFrame:
    """Predict every row of ``cfg.perturbations`` and write the table to ``cfg.out``; or rank links, see ``ranked``.

    Its column ``note`` says what of a row the model never met in training.

    With ``cfg.system`` a fitted baseline of the run answers instead of the model, from the same request.

    With ``cfg.added_genes`` the rows may name genes that the model was not trained with. With ``cfg.attention_out`` a
    second table tells which genes the model looked at: sample_id, genes, rank, gene, weight. With ``cfg.controls`` the
    rows are predicted from the user's own control cells. Expression may be written as h5ad.
    """
    from torchcell.training import checkpoint

    out = _named("out", cfg.out, (*WRITERS, PROFILES))
    if cfg.source is not None or cfg.target is not None:
        return ranked(cfg, out)
    attention_out = _attention_out(cfg, out)
    saved = checkpoint.load(cfg.ckpt, cfg.trust)
    _refuse_profiles_of(saved.spec, out)
    found = answer(
        saved,
        Request(
            cfg.perturbations,
            system=cfg.system,
            columns=cfg.columns,
            controls=None if cfg.controls is None else {"path": cfg.controls, **cfg.controls_as},
            unknown_genes=cfg.unknown_genes,
            added_genes=cfg.added_genes,
            batch_size=cfg.batch_size,
            top_genes=None if attention_out is None else cfg.top_genes,
            trust=cfg.trust,
        ),
    )
    _write_predictions(found, out)
    _print(cfg, found, out)
    if attention_out is not None:
        _write_attention(found.table, found.attended, found.spec.genes, attention_out)
    return found.table


def _attention_out(cfg: DictConfig, out: Path) -> Path | None:
    """Path of the second table, or None; a request that cannot be served is refused before anything is read."""
    from torchcell.io.errors import InputError
    from torchcell.training.baselines import MODEL

    if cfg.perturbations is None:
        raise InputError(
            "name what to predict: perturbations=FILE; or, of a knowledge graph, source=NODE or target=NODE"
        )
    given = [key for key in ("added_genes", "attention_out") if cfg[key] is not None]
    if given and cfg.system != MODEL:
        named = ", ".join(f"{key}={cfg[key]}" for key in given)
        raise InputError(f"{named} is for the model, not for system={cfg.system}; leave it out")
    if cfg.attention_out is None:
        return None
    attention_out = _named("attention_out", cfg.attention_out)
    if attention_out.resolve() == out.resolve():
        raise InputError(f"attention_out={attention_out} would overwrite the predictions; name another file than out")
    if cfg.top_genes < 1:
        raise InputError(f"top_genes={cfg.top_genes}: must be 1 or more; set attention_out=null to write no such table")
    return attention_out


def _refuse_profiles_of(spec: Any, out: Path) -> None:
    """Expression goes into h5ad, a phenotype does not."""
    from torchcell.evaluation.registry import metric_set
    from torchcell.io.errors import InputError

    if out.suffix == PROFILES and not metric_set(spec.task).per_gene:
        raise InputError(
            f"out={out}: this model predicts a phenotype, and h5ad is for expression; name a .parquet file"
        )


def _write_predictions(found: Answer, out: Path) -> None:
    """The table, or the profiles with its notes."""
    from torchcell.io.cache import atomic_write

    if out.suffix != PROFILES:
        _write(found.table, out)
        return
    profiles = found.profiles()
    with atomic_write(out) as temporary:
        profiles.write_h5ad(temporary)


def _print(cfg: DictConfig, found: Answer, out: Path) -> None:
    """What was left out, the first rows, their notes, and what the run's verdict was."""
    from torchcell.core.prediction_notes import summary
    from torchcell.io.console import Console

    console, table = Console(markup=False), found.table
    for remark in found.remarks:
        console.print(remark, soft_wrap=True, highlight=False)
    console.print(table.head(5).to_string(index=False, max_cols=MOST_COLUMNS), soft_wrap=True, highlight=False)
    if noted := summary(found.notes, len(table)):
        console.print(noted, soft_wrap=True, highlight=False)
    console.print(f"wrote {len(table):,} predictions to {out}", soft_wrap=True, highlight=False)
    _say_verdict(console, cfg.ckpt, cfg.system)


def _write_attention(
    table: pd.DataFrame, attended: list[tuple[Tensor, Tensor]], genes: tuple[str, ...], path: Path
) -> None:
    """The second table."""
    import torch

    from torchcell.io.console import Console

    weight, gene = (torch.cat(columns) for columns in zip(*attended, strict=True))
    _write(attention_table(table, weight, gene, genes), path)
    text = f"wrote the {weight.shape[1]} genes that each set looks at most to {path}"
    Console(markup=False).print(text, soft_wrap=True, highlight=False)


def _say_verdict(console: Console, ckpt: str, system: str) -> None:
    """A prediction is worth what its model is: say what the run found, where it is known, and what was better."""
    from torchcell.training.baselines import MODEL
    from torchcell.training.score import better_system, judged_as, score_of

    # A verdict is the model's: of a baseline its own score is said, never another system's.
    for said in (judged_as(ckpt), better_system(ckpt)) if system == MODEL else (score_of(ckpt, system),):
        if said:
            console.print(said, soft_wrap=True, highlight=False)


def _read_with(wanted: Request, representation: Any) -> dict[str, Any]:
    """The user's control cells and names of columns where they are set, for a representation that reads them."""
    from torchcell.cells.table import Controls
    from torchcell.io.errors import InputError

    if wanted.controls is not None and not representation.reads_controls:
        raise InputError(
            f"controls={wanted.controls['path']}: this model does not predict from control cells; leave the key out"
        )
    if wanted.columns is not None and not representation.reads_columns:
        raise InputError(
            f"columns={dict(wanted.columns)}: the columns of this model's request have fixed names; rename them in the "
            "file (those of control cells are named by controls_as.columns)"
        )
    controls = {} if wanted.controls is None else {"controls": Controls(**wanted.controls)}
    return controls if wanted.columns is None else {**controls, "columns": dict(wanted.columns)}


def rank(
    saved: Checkpoint,
    source: str | None = None,
    target: str | None = None,
    edge_type: str | None = None,
    top: int | None = 20,
    held_out: bool = True,
    batch_size: int | None = None,
    **trusted: Any,
) -> pd.DataFrame:
    """The targets that a model of a knowledge graph ranks for ``source``, or the sources for ``target``.

    Args:
        saved: The checkpoint.
        source: Id or name of a node.
        target: Of the other end; one of the two is given.
        edge_type: Of the links; may be left out where the model predicts one.
        top: Ranks that are listed; none: all.
        held_out: Mark links of validation and test too, for which the run's data are read again.
        batch_size: Links at once.
        **trusted: ``trust`` and ``data_changed``, as of ``datamodule_of``.
    """
    import torch

    from torchcell.core.datamodule import RecordDataModule
    from torchcell.knowledge_graph.embed import held_out_links, ranked_links
    from torchcell.knowledge_graph.spec import KnowledgeGraphSpec
    from torchcell.training import build

    model = saved.model(trusted.get("trust", ())).to("cuda" if torch.cuda.is_available() else "cpu")
    links = None
    if held_out and isinstance(saved.spec, KnowledgeGraphSpec):
        data = build.datamodule_of(saved, **trusted)
        links = held_out_links(data.record_whole, data.split.part)
    prior, at_once = saved.prior(trusted.get("trust", ())), batch_size or RecordDataModule.request_batch
    return ranked_links(model, edge_type, source, target, top, links, at_once, prior)


def ranked(cfg: DictConfig, out: Path) -> pd.DataFrame:
    """Write the ``rank`` of links for ``cfg.source`` or ``cfg.target``, known links marked."""
    from torchcell.io.console import Console
    from torchcell.io.errors import InputError
    from torchcell.training import checkpoint
    from torchcell.training.baselines import MODEL

    _named("out", cfg.out)
    if cfg.system != MODEL:
        raise InputError(
            f"system={cfg.system}: source and target rank the links of the model; of a baseline list the links, "
            "perturbations=FILE"
        )
    if cfg.perturbations is not None:
        raise InputError("perturbations names rows to predict, source and target a node to rank links of; give one")
    saved = checkpoint.load(cfg.ckpt, cfg.trust)
    ends = {"source": cfg.source, "target": cfg.target, "edge_type": cfg.edge_type}
    how = {"top": cfg.top, "held_out": cfg.held_out_links, "batch_size": cfg.batch_size}
    table = rank(saved, **ends, **how, trust=cfg.trust, data_changed=cfg.data_changed)
    _write(table, out)
    console = Console(markup=False)
    console.print(table.to_string(index=False, max_rows=50), soft_wrap=True, highlight=False)
    if noted := int((table[NOTE] != "").sum()):
        console.print(f"{noted:,} of {len(table):,} ranked links carry a note", highlight=False)
    console.print(f"wrote {len(table):,} ranked links to {out}", soft_wrap=True, highlight=False)
    _say_verdict(console, cfg.ckpt, cfg.system)
    return table


def looked_at(model: Model, batch: Any, n: int) -> tuple[Tensor, Tensor]:
    """The genes on which a model puts most weight, a few sets at a time.

    Args:
        model: In evaluation mode.
        batch: B sets.
        n: Genes a set; fewer where the cell has fewer.

    Returns:
        Weights [B, n], largest first, and the genes' positions [B, n], on the CPU.

    Raises:
        InputError: The model does not tell.
    """
    import torch

    from torchcell.io.errors import InputError

    step, tops = max(1, WEIGHTS // max(len(model.spec.genes), 1)), []
    for start in range(0, len(batch), step):
        weight = model.attended(batch.narrow(start, min(start + step, len(batch))))
        if weight is None:
            raise InputError(f"{type(model).__name__} does not tell which genes it looks at; set attention_out=null")
        tops.append(weight.topk(min(n, weight.shape[1]), dim=1))
    weights, genes = zip(*tops, strict=True)
    return torch.cat(weights).float().cpu(), torch.cat(genes).cpu()


def attention_table(table: pd.DataFrame, weight: Tensor, gene: Tensor, names: tuple[str, ...]) -> pd.DataFrame:
    """A row a set and rank.

    Args:
        table: Predictions, a row a set; its ``sample_id`` and ``genes`` are taken over.
        weight: [B, n], largest first.
        gene: Positions in ``names`` [B, n].
        names: Of the genes.
    """
    import numpy as np
    import pandas as pd

    n = weight.shape[1]
    said = {column: np.repeat(table[column].to_numpy(), n) for column in ("sample_id", "genes") if column in table}
    rank = np.tile(np.arange(1, n + 1), len(weight))
    looked = {"rank": rank, "gene": np.array(names)[gene.numpy().ravel()], "weight": weight.numpy().ravel()}
    return pd.DataFrame(said | looked)


def _named(key: str, name: str, endings: Collection[str] = WRITERS) -> Path:
    """The path, where its ending is one that can be written, and a file can be made there."""
    from pathlib import Path

    from torchcell.io.errors import InputError
    from torchcell.io.paths import refuse_unwritable

    if Path(name).suffix not in endings:
        raise InputError(f"{key}={name}: the name must end in {' or '.join(endings)}")
    refuse_unwritable(name, key)
    return Path(name)


def _write(table: pd.DataFrame, path: Path) -> None:
    from torchcell.io.tables import write_table

    write_table(table, path)


if __name__ == "__main__":
    run_entry(predict, "predict")
