"""``Run``: a trained model in a notebook, with what its run has written."""

from __future__ import annotations

import html
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchcell.io.errors import InputError, readable, some

if TYPE_CHECKING:
    import anndata
    import pandas as pd
    from matplotlib.figure import Figure

    from torchcell.core.model import Model
    from torchcell.training.checkpoint import Checkpoint

COLORS = {"green": "#1a7f37", "red": "#cf222e"}
"""Of a verdict: better and worse; any other has the color of the text."""
CEILING = "replicate_ceiling"
POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    "style-src 'unsafe-inline'\">"
)
"""Put before a page that may be a stranger's: no image or style is fetched, which would tell others who reads it."""


def load(path: str | Path, trust: Sequence[str] = ()) -> Run:
    """Open a trained run.

    Args:
        path: A run's folder, or a checkpoint: ``RUN/checkpoints/best.ckpt``. It may be a stranger's: nothing in it is
            run but models and data of torchcell.
        trust: Packages of your own whose classes it may name.

    Raises:
        InputError: No run there; a checkpoint that holds more than plain values, or of a version that can't be read.

    Example:
        >>> import torchcell as tc
        >>> run = tc.fit("simulated_dango", "+debug=fast", "baselines=none")
        >>> tc.load(run.path).verdict == run.verdict
        True
    """
    path = Path(path)
    if not path.is_dir():
        return Run(path, trust)
    best = path / "checkpoints" / "best.ckpt"
    if not best.is_file():
        below = sorted(found.parents[1] for found in path.glob("**/checkpoints/best.ckpt"))
        hint = f"; below it are {some(below)}" if below else ""
        raise InputError(f"{path} is no folder of a run: it has no checkpoints/best.ckpt{hint}")
    return Run(best, trust)


class Run:
    """A trained model, its scores, and its predictions.

    Args:
        ckpt: A checkpoint of ``fit`` or ``torchcell.train``.
        trust: Packages of your own whose classes it may name.

    Attributes:
        ckpt: The checkpoint.
        path: The run's folder.

    Raises:
        InputError: See ``load``.

    Example:
        >>> import torchcell as tc
        >>> run = tc.fit("simulated_dango", "+debug=fast", "baselines=none")
        >>> run.predict(["G0001|G0002"]).columns.tolist()
        ['sample_id', 'genes', 'kinds', 'gene_interaction', 'note']
    """

    def __init__(self, ckpt: str | Path, trust: Sequence[str] = ()) -> None:
        from torchcell.training import checkpoint

        self.trust = tuple(trust)
        self.checkpoint: Checkpoint = checkpoint.load(ckpt, self.trust)
        self.ckpt = Path(ckpt)
        self.path = self.ckpt.absolute().parents[1]

    # What the run has written -----------------------------------------------------------------------

    @property
    def config(self) -> dict[str, Any]:
        """The config that it was trained with."""
        from omegaconf import OmegaConf

        found = OmegaConf.to_container(self.checkpoint.config)
        assert isinstance(found, dict)
        return {str(key): value for key, value in found.items()}

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Content of ``metrics.json``: verdict, checks, split, hashes."""
        from torchcell.io.run_files import read_summary

        return read_summary(self._file("metrics.json"))

    @property
    def verdict(self) -> str:
        """The one line on whether the model beat the baselines, as the run's files say it; ``evaluate`` scores anew."""
        return readable(" ".join(f"{self.summary['model']}: {self.summary['verdict']['text']}".split()))

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Value and 95 % interval of every system on every metric."""
        from torchcell.io.run_files import read_scores

        return read_scores(self._file("metrics.csv"))

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """The model minus each baseline on each compared metric, with the paired 95 % interval."""
        return self._table("comparisons.csv")

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row an epoch, counted from 0."""
        return self._table("history.csv")

    @property
    def plot(self) -> Plots:
        """Figures: ``run.plot.forest()``, ``run.plot.training()``."""
        return Plots(self)

    def report(self) -> Page:
        """The run's page, shown in a notebook; ``str(run.report())`` is its path."""
        return Page(self._file("report.html"))

    # What the model says ----------------------------------------------------------------------------

    def predict(
        self,
        perturbations: Any,
        system: str = "model",
        controls: Any = None,
        columns: Mapping[str, str] | None = None,
        unknown_genes: str = "error",
        added_genes: Any = None,
        batch_size: int | None = None,
    ) -> pd.DataFrame | anndata.AnnData:
        """Predict perturbations, as ``python -m torchcell.predict`` does; no file is written.

        Args:
            perturbations: A DataFrame with the columns of the task (screens: ``genes``, joined by ``|``; cells:
                ``perturbation``; drugs: ``drug`` or ``smiles``, ``cell_line``, ``dose_value``, ``time``; links:
                ``source``, ``target``), an AnnData of treated wells, a list of perturbations (of pairs, for links), or
                a file.
            system: Who answers: the model, or a baseline of its run, e.g. ``low_rank_als``.
            controls: AnnData or file of the control cells that predictions of single cells start from; or a dictionary
                with that as ``path`` and how it is read: ``scale``, ``columns``, ``layer``, ``gene_column``.
            columns: Our name of a column -> yours, for drugs.
            unknown_genes: ``error``, or ``drop`` the rows that name a gene the model does not know.
            added_genes: DataFrame or file of further genes, ``gene`` and the feature columns of the training.
            batch_size: Samples at once; none: the task's.

        Returns:
            A row a prediction; its column ``note`` says what of it is new to the model. Expression is AnnData, with
            layers ``control`` and ``change``, where AnnData was given, else a DataFrame.

        Raises:
            InputError: Rows that can't be read, names that the model does not know; all of them in one line.
        """
        from torchcell.evaluation.registry import metric_set
        from torchcell.io.in_memory import in_memory, is_cells
        from torchcell.predict import Request, answer

        cells = dict(controls) if isinstance(controls, Mapping) else {"path": controls}
        as_adata = (is_cells(perturbations) or is_cells(cells["path"])) and metric_set(
            self.checkpoint.spec.task
        ).per_gene
        if controls is not None:
            cells["path"] = in_memory(cells["path"], (), "controls")
        wanted = Request(
            in_memory(perturbations, self.checkpoint.datamodule_class(self.trust).request_columns, "perturbations"),
            system=system,
            columns=columns,
            controls=None if controls is None else cells,
            unknown_genes=unknown_genes,
            added_genes=None if added_genes is None else in_memory(added_genes, ("gene",), "genes"),
            batch_size=batch_size,
            trust=self.trust,
        )
        found = answer(self.checkpoint, wanted)
        for what, n in {**getattr(found.record, "dropped", {}), **found.dropped}.items():
            warnings.warn(f"left out: {n:,} {what}", stacklevel=2)
        for note in getattr(found.record, "notes", ()):
            warnings.warn(note, stacklevel=2)
        return found.profiles() if as_adata else found.table

    def rank(
        self, source: str | None = None, target: str | None = None, edge_type: str | None = None, top: int | None = 20
    ) -> pd.DataFrame:
        """The most likely partners of a node of a knowledge graph, known links marked.

        Args:
            source: Id or name of a node, whose targets are ranked.
            target: Or of one whose sources are ranked.
            edge_type: Of the links; may be left out where the model predicts one.
            top: Ranks that are listed; none: all.

        Raises:
            InputError: The model predicts no links, or an unknown node.
        """
        from torchcell.predict import rank

        if (source is None) == (target is None):
            raise InputError("rank names one node: source=NAME for its targets, or target=NAME for its sources")
        return rank(self.checkpoint, source, target, edge_type, top, trust=self.trust)

    def embed(self, perturbations: Any = None, part: str | None = None, of: str = "samples") -> anndata.AnnData:
        """What the model makes of samples, genes, or the nodes of a knowledge graph.

        Args:
            perturbations: Sets to embed, as in ``predict``; none: those that the run was made on.
            part: ``train``, ``val`` or ``test`` of the run's own; none: all.
            of: ``samples`` or ``genes``; of a knowledge graph it is the nodes.

        Returns:
            The leading latent as ``X``, further ones in ``obsm``, what is known of a row in ``obs``; of nodes
            ``uns["health"]`` says for each node type whether it has collapsed.

        Raises:
            InputError: The model has no such latents; data that changed since training.
        """
        from torchcell.embed import embed_graph, embed_samples
        from torchcell.io.in_memory import in_memory
        from torchcell.knowledge_graph.report import health_table
        from torchcell.knowledge_graph.spec import KnowledgeGraphSpec

        if isinstance(self.checkpoint.spec, KnowledgeGraphSpec):
            if perturbations is not None:
                raise InputError("this model embeds the nodes of its knowledge graph; leave perturbations out")
            found = embed_graph(self.checkpoint, self._model(), part, trust=self.trust)
            return found.table.to_anndata({"health": health_table(found.health).set_index("type")})
        if of not in ("samples", "genes"):
            raise InputError(f"of={of!r}: must be samples or genes")
        columns = self.checkpoint.datamodule_class(self.trust).request_columns
        given = None if perturbations is None else in_memory(perturbations, columns, "perturbations")
        sets = embed_samples(self.checkpoint, self._model(), given, part=part, trust=self.trust)
        table = sets.table if of == "samples" else sets.genes
        if table is None:
            raise InputError(f"{self.summary['model']} has no latents of genes")
        return table

    # How it is shown --------------------------------------------------------------------------------

    def __repr__(self) -> str:
        scored = (self.path / "metrics.json").is_file()
        return f"Run({str(self.ckpt)!r})\n{self.verdict if scored else 'not scored yet'}"

    def _repr_html_(self) -> str:
        """Verdict, table and forest plot."""
        if not (self.path / "metrics.json").is_file():
            return f"<p>{_escaped(self)}</p>"
        color = COLORS.get(str(self.summary["verdict"].get("color")), "inherit")
        head = f'<p style="font-weight:bold;color:{color}">{_escaped(self.verdict)}</p>'
        rows = "".join(
            "<tr>" + "".join(f"<td>{_escaped(cell)}</td>" for cell in row) + "</tr>" for row in self._compared()
        )
        names = "".join(f"<th>{_escaped(name)}</th>" for name in ("system", *self._shown_metrics()))
        table = f"<table><thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table>"
        return f"{head}{table}{_image(self.plot.forest())}<p><code>{_escaped(self.path)}</code></p>"

    def _shown_metrics(self) -> list[str]:
        """The primary metric and those of calibration, as far as the table has them."""
        verdict = self.summary["verdict"]
        names = [verdict["metric"], *(one["metric"] for one in verdict.get("calibration", ()))]
        return [name for name in dict.fromkeys(names) if (self.metrics["metric"] == name).any()]

    def _compared(self) -> list[list[str]]:
        """A row a system: its values and intervals."""
        numbers = zip(*(self.metrics[name] for name in ("system", "metric", "value", "low", "high")), strict=True)
        cells = {(system, metric): _cell(*found) for system, metric, *found in numbers}
        names = self._shown_metrics()
        return [[system, *(cells.get((system, name), "") for name in names)] for system in self._roles()]

    def _roles(self) -> dict[str, str]:
        """Role of each system, in the order of the table."""
        known = {str(self.summary["model"]): "model", CEILING: "ceiling"}
        known |= dict.fromkeys(self.summary.get("comparators", ()), "comparator")
        rows = self.metrics[self.metrics["metric"] == self.summary["verdict"]["metric"]]
        return {system: known.get(system, "baseline") for system in rows["system"].astype(str)}

    def _model(self) -> Model:
        import torch

        return self.checkpoint.model(self.trust).to("cuda" if torch.cuda.is_available() else "cpu")

    def _file(self, name: str) -> Path:
        path = self.path / name
        if not path.is_file():
            raise InputError(
                f"{path} is not there: the run was not scored; python -m torchcell.evaluate ckpt={self.ckpt}"
            )
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise InputError(
                f"{path} leads out of the run's folder, to what could be any file of yours; put a copy there"
            )
        return path

    def _table(self, name: str) -> pd.DataFrame:
        from torchcell.io.run_files import read_rows

        return read_rows(self._file(name))


@dataclass(frozen=True)
class Plots:
    """Figures of a run; each is a matplotlib figure."""

    run: Run

    def forest(self, metric: str | None = None) -> Figure:
        """Every system's value and 95 % interval on one metric.

        Args:
            metric: As in ``run.metrics``; none: the primary one.

        Raises:
            InputError: A metric that the run does not have.
        """
        from torchcell.evaluation.registry import higher_is_better, is_known, learned_directions
        from torchcell.io.errors import near
        from torchcell.report.page import literal
        from torchcell.report.plots import forest_of

        summary, table = self.run.summary, self.run.metrics
        name = str(summary["verdict"]["metric"]) if metric is None else metric
        if name not in set(table["metric"]):
            raise InputError(f"no metric {name!r}; the nearest are {near(name, sorted(set(table['metric'])))}")
        rows = table[table["metric"] == name]
        roles = {system: role for system, role in self.run._roles().items() if system in set(rows["system"])}
        with learned_directions(one for one in summary.get("lower_is_better", ()) if not is_known(one)):
            return literal(forest_of(rows, roles, name, higher_is_better(name)))

    def training(self) -> Figure | None:
        """Learning curves; none where there are no two epochs."""
        from torchcell.report.page import literal
        from torchcell.report.plots import learning_curves

        figure = learning_curves(self.run.history)
        return None if figure is None else literal(figure)


@dataclass(frozen=True)
class Page(os.PathLike):
    """A run's page; a notebook shows it in a frame that runs no script and reads nothing else."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        content = html.escape(POLICY + self.path.read_text(encoding="utf-8", errors="replace"))
        return f'<iframe sandbox="" srcdoc="{content}" style="width:100%;height:40em;border:0"></iframe>'


def _cell(value: float, low: float, high: float) -> str:
    if value != value:
        return "undefined"
    return f"{value:.3f}" if low != low else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _escaped(text: object) -> str:
    return html.escape(readable(text))


def _image(figure: Figure) -> str:
    """A figure as text of a page."""
    import base64
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor="white")
    return f'<img alt="forest plot" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"/>'
