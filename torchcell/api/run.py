"""``Run``: a trained model in a notebook, with what its run has written."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchcell.api.outcome import Outcome
from torchcell.io.errors import InputError, some

if TYPE_CHECKING:
    import anndata
    import pandas as pd

    from torchcell.core.model import Model
    from torchcell.training.checkpoint import Checkpoint


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


class Run(Outcome):
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
        super().__init__(self.ckpt.absolute().parents[1])

    @property
    def _given(self) -> Path:
        return self.ckpt

    @property
    def config(self) -> dict[str, Any]:
        """The config that it was trained with.

        Example:
            >>> import torchcell as tc
            >>> run = tc.fit("simulated_dango", "+debug=fast", "baselines=none")
            >>> run.config["trainer"]["max_epochs"]
            1
        """
        from omegaconf import OmegaConf

        found = OmegaConf.to_container(self.checkpoint.config)
        assert isinstance(found, dict)
        return {str(key): value for key, value in found.items()}

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

        Example:
            >>> import torchcell as tc
            >>> run = tc.fit("simulated_dango", "+debug=fast", "baselines=none")
            >>> len(run.predict(["G0001|G0002", "G0003"]))
            2
        """
        from torchcell.evaluation.registry import metric_set
        from torchcell.io.in_memory import in_memory, is_cells
        from torchcell.predict import Request, answer

        cells = dict(controls) if isinstance(controls, Mapping) else {"path": controls}
        per_gene = metric_set(self.checkpoint.spec.task).per_gene
        as_adata = per_gene and (is_cells(perturbations) or is_cells(cells["path"]))
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
        for remark in found.remarks:
            warnings.warn(remark, stacklevel=2)
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

        Example:
            >>> import torchcell as tc
            >>> run = tc.fit("simulated_hgt", "+debug=fast", "baselines=none")
            >>> ranked = run.rank(source="Compound::0001", top=3)
            >>> len(ranked)
            3
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

        Example:
            >>> import torchcell as tc
            >>> run = tc.fit("simulated_dango", "+debug=fast", "baselines=none")
            >>> run.embed(["G0001|G0002"]).n_obs
            1
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

    def _model(self) -> Model:
        import torch

        return self.checkpoint.model(self.trust).to("cuda" if torch.cuda.is_available() else "cpu")
