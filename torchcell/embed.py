"""``python -m torchcell.embed``: what a model makes of sets, genes and the cell, or of the nodes of a knowledge graph.

``python -m torchcell.embed validate FILE`` checks embeddings that were made elsewhere.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchcell.io.progress import say, stage
from torchcell.knowledge_graph.embed import COLLAPSED, SETS
from torchcell.knowledge_graph.embed import main as validate
from torchcell.training.entry import run_entry

if TYPE_CHECKING:
    from pathlib import Path

    import anndata
    import numpy as np
    from omegaconf import DictConfig

    from torchcell.core.model import Model
    from torchcell.knowledge_graph.embed import EmbeddedNodes
    from torchcell.training.checkpoint import Checkpoint


def embed(cfg: DictConfig) -> anndata.AnnData | EmbeddedNodes:
    """Embed the nodes of a model that embeds nodes, else the sets that ``cfg`` names."""
    from pathlib import Path

    import torch

    from torchcell.knowledge_graph.spec import KnowledgeGraphSpec
    from torchcell.training import checkpoint

    out = Path(cfg.out)
    _check(cfg, out)
    saved = checkpoint.load(cfg.ckpt, cfg.trust)
    spec = saved.spec if cfg.added_genes is None else saved.spec_with(cfg.added_genes, cfg.trust)
    model = saved.model(cfg.trust, spec).to("cuda" if torch.cuda.is_available() else "cpu")
    return _nodes(cfg, out, saved, model) if isinstance(spec, KnowledgeGraphSpec) else _sets(cfg, out, saved, model)


def main(cfg: DictConfig) -> None:
    """``embed``, with its own exit status for a collapse where that is asked for."""
    found = embed(cfg)
    if cfg.fail_on_collapse and getattr(found, "collapsed", False):
        sys.exit(COLLAPSED)


def embed_graph(saved: Checkpoint, model: Model, part: str | None = None, **how: Any) -> EmbeddedNodes:
    """The nodes of a model of a knowledge graph, and their health.

    Args:
        saved: The checkpoint.
        model: With its weights.
        part: Whose held-out links judge the nodes; none: those of test.
        **how: ``held_out``, whether links judge them at all, for which the run's data are read again; ``batch_size`` of
            those links; ``trust`` and ``data_changed``, as of ``datamodule_of``.
    """
    from torchcell.knowledge_graph import embed
    from torchcell.training import build

    held_out, size = how.pop("held_out", True), how.pop("batch_size", 8192)
    skill = []
    if held_out:
        skill = embed.held_out_skill(model, build.datamodule_of(saved, **how), part or "test", size)
    return embed.embed_nodes(model, saved.path, skill)


@dataclass(frozen=True, eq=False)
class EmbeddedSets:
    """What a model makes of sets of perturbed genes.

    Attributes:
        table: A row a set, the leading latent as ``X``; ``uns["cell"]`` are the latents of the wild type.
        genes: A row a gene; none from a model without latents of genes.
        dropped: Counts of what was left out.
    """

    table: anndata.AnnData
    genes: anndata.AnnData | None
    dropped: dict[str, int]


def embed_samples(saved: Checkpoint, model: Model, perturbations: Any = None, **how: Any) -> EmbeddedSets:
    """The latents of sets and genes.

    Args:
        saved: The checkpoint.
        model: With its weights.
        perturbations: File, or table in memory, of the sets; none: those of the run.
        **how: ``part`` of the run's own sets; ``unknown_genes``, ``error`` or ``drop``; ``batch_size``; ``trust`` and
            ``data_changed``, as of ``datamodule_of``.

    Raises:
        InputError: The model has no latents of sets; no set is left.
    """
    from torchcell.io.errors import InputError
    from torchcell.training import embed

    trust = how.get("trust", ())
    spec, representation = model.spec, saved.datamodule_class(trust)
    if perturbations is None:
        sets = embed.own_sets(saved, how.get("part"), trust, how.get("data_changed", "error"))
    else:
        policy = how.get("unknown_genes", "error")
        sets = embed.asked_sets(perturbations, spec, representation, policy, saved.prior(trust))
    found = embed.embed_sets(model, embed.loader(sets, how.get("batch_size", 8192)), model.device)
    if not found.latents:
        raise InputError(
            f"{type(model).__name__} has no latent of a set to write; use a model that has one, e.g. model=dango, or "
            "give yours the method set_embeddings"
        )
    table, genes = embed.set_table(sets, found, spec, representation), embed.gene_table(model)
    table.uns["cell"] = embed.cell_latents(model)
    about = {"checkpoint": str(saved.path.resolve()), "split_hash": saved.spec.split_hash}
    table.uns |= about | {"rows": SETS}
    if genes is not None:
        genes.uns |= about | {"rows": "genes"}
    return EmbeddedSets(table, genes, sets.dropped)


def _nodes(cfg: DictConfig, out: Path, saved: Checkpoint, model: Model) -> EmbeddedNodes:
    """Write a table of all nodes and the page of their health; print the collapse table."""
    from torchcell.io.console import Console
    from torchcell.io.errors import InputError
    from torchcell.knowledge_graph import embed
    from torchcell.knowledge_graph.report import print_health

    if cfg.perturbations is not None:
        raise InputError(
            f"perturbations={cfg.perturbations} names sets of genes, but {type(model).__name__} embeds the nodes of a "
            "knowledge graph; leave it out"
        )
    how = {"held_out": cfg.held_out_links, "batch_size": cfg.batch_size}
    found = embed_graph(saved, model, cfg.part, **how, trust=cfg.trust, data_changed=cfg.data_changed)
    about = {"checkpoint": str(saved.path.resolve()), "split_hash": saved.spec.split_hash}
    written = embed.write_nodes(found, out, about, cfg.seed)
    print_health(found.health)
    for path in written:
        Console().print(f"wrote {path}", soft_wrap=True, highlight=False)
    return found


def _sets(cfg: DictConfig, out: Path, saved: Checkpoint, model: Model) -> anndata.AnnData:
    """Write tables of sets and genes and their maps; return the sets."""
    from torchcell.io.cache import atomic_write
    from torchcell.io.console import Console
    from torchcell.io.errors import InputError
    from torchcell.report.maps import FEWEST

    if out.suffix != ".h5ad":
        raise InputError(f"out={out}: the name must end in .h5ad")
    if cfg.fail_on_collapse:
        raise InputError(
            f"fail_on_collapse=true judges nodes of a knowledge graph, and {type(model).__name__} has none; drop it"
        )
    how = {"part": cfg.part, "unknown_genes": cfg.unknown_genes, "batch_size": cfg.batch_size}
    found = embed_samples(saved, model, cfg.perturbations, **how, trust=cfg.trust, data_changed=cfg.data_changed)
    table, genes = found.table, found.genes
    drawn = _map(table, cfg)
    written, tables = [], {out: table} if genes is None else {out: table, _beside(out, "_genes.h5ad"): genes}
    for path, content in tables.items():
        with atomic_write(path) as temporary:
            content.write_h5ad(temporary)
        written.append(f"{path} ({content.n_obs:,} {'sets' if path == out else 'genes'}, {content.uns['latent']})")
    written += _draw(table, drawn, model.spec.outputs, out)

    console = Console(markup=False)
    for what, n in found.dropped.items():
        console.print(f"left out: {n:,} {what}", highlight=False)
    if cfg.umap and "X_umap" not in table.obsm:
        console.print(f"no UMAP: it needs {FEWEST} sets whose latents differ", highlight=False)
    console.print(table.obs.head(5).to_string(max_cols=10), soft_wrap=True, highlight=False)
    if len(drawn) < table.n_obs:
        console.print(f"maps show {len(drawn):,} of {table.n_obs:,} sets, chosen at random (max_map)", highlight=False)
    if genes is None:
        console.print(f"{type(model).__name__} has no latents of genes; no table of genes", highlight=False)
    for line in written:
        console.print(f"wrote {line}", soft_wrap=True, highlight=False)
    return table


def _check(cfg: DictConfig, out: Path) -> None:
    """Refuse what does not go together before anything is loaded."""
    from torchcell.io.embeddings import refuse_ending
    from torchcell.io.errors import InputError
    from torchcell.io.paths import refuse_unwritable
    from torchcell.report.maps import FEWEST

    refuse_ending(out)
    refuse_unwritable(out, "out")
    if cfg.part is not None and cfg.perturbations is not None:
        raise InputError(
            f"part={cfg.part} is of the run's own sets, and perturbations={cfg.perturbations} names others; "
            "give one of the two"
        )
    if cfg.max_map < FEWEST:
        raise InputError(f"max_map={cfg.max_map}: a map needs at least {FEWEST} sets")


@stage("laying out the maps")
def _map(table: anndata.AnnData, cfg: DictConfig) -> np.ndarray:
    """Add PCA of all sets and UMAP of those that are drawn; give the positions of these."""
    import numpy as np

    from torchcell.report.maps import FEWEST, principal_components, umap_coordinates

    scores, shares = principal_components(table.X)
    table.obsm["X_pca"], table.uns["pca"] = scores, {"variance_ratio": shares}
    drawn = np.sort(np.random.default_rng(cfg.seed).permutation(table.n_obs)[: cfg.max_map])
    if cfg.umap and len(drawn) >= FEWEST and shares.any():
        table.obsm["X_umap"] = np.full((table.n_obs, 2), np.nan, dtype=np.float32)
        table.obsm["X_umap"][drawn] = umap_coordinates(scores[drawn], cfg.seed)
    return drawn


def _draw(table: anndata.AnnData, drawn: np.ndarray, outputs: tuple[str, ...], out: Path) -> list[str]:
    """Write the maps as PNG, a panel a phenotype: measured where that is known, else predicted."""
    import numpy as np

    from torchcell.io.cache import atomic_write
    from torchcell.report.maps import draw_maps, pca_map, umap_map
    from torchcell.report.page import DPI, literal
    from torchcell.report.sections import MOST_OUTPUTS

    colors = {}
    for name in outputs[:MOST_OUTPUTS]:
        known = name in table.obs and bool(np.isfinite(table.obs[name]).any())
        label = f"measured {name}" if known else f"predicted {name}"
        colors[label] = table.obs[name if known else label].to_numpy()[drawn]
    maps = {"_pca.png": pca_map(table.obsm["X_pca"][drawn], table.uns["pca"]["variance_ratio"])}
    if "X_umap" in table.obsm:
        maps["_umap.png"] = umap_map(table.obsm["X_umap"][drawn])
    paths = []
    for ending, one in maps.items():
        path = _beside(out, ending)
        with atomic_write(path) as temporary:
            figure = literal(draw_maps([one], colors, columns=min(2, len(colors))))
            figure.savefig(temporary, dpi=DPI, facecolor="white")
        paths.append(str(path))
    return paths


def _beside(out: Path, ending: str) -> Path:
    """A file named after ``out``."""
    return out.with_name(out.stem + ending)


if __name__ == "__main__":
    if sys.argv[1:2] == ["validate"]:
        if not {"-h", "--help"} & set(sys.argv):
            say("torchcell.embed validate: loading ...")
        sys.exit(validate(sys.argv[2:]))
    run_entry(main, "embed")
