"""What a trained model makes of nodes: tables of embeddings, their health, predicted links."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from torchcell.core.batch import BatchOrder, PackedLoader
from torchcell.core.datamodule import RecordDataModule
from torchcell.core.model import Model
from torchcell.core.prediction_notes import joined
from torchcell.core.prior import Prior
from torchcell.core.task import Inspection
from torchcell.evaluation.bootstrap import Weights
from torchcell.evaluation.metrics import auroc
from torchcell.io.command import in_one_line
from torchcell.io.embeddings import EmbeddingTable
from torchcell.io.errors import InputError, near, some
from torchcell.io.paths import refuse_unwritable
from torchcell.io.progress import stage, track
from torchcell.knowledge_graph.datamodule import LinkBatch
from torchcell.knowledge_graph.embedding_health import TRAINING, LinkSkill, TypeHealth, embedding_health, health_guard
from torchcell.knowledge_graph.metrics import dirichlet_energies
from torchcell.knowledge_graph.report import health_sections, health_table, relation_sections, write_health_page
from torchcell.knowledge_graph.spec import KnowledgeGraphSpec
from torchcell.knowledge_graph.table import link_notes, pairs_of
from torchcell.knowledge_graph.typed_graph import TypedGraph
from torchcell.report.sections import Section

if TYPE_CHECKING:
    from torchcell.knowledge_graph.embedding_health import FileBounds
    from torchcell.knowledge_graph.record import Links


COLLAPSED = 3
"""Exit status of a collapse, with ``--fail-on-collapse``."""
SETS = "perturbation sets"
"""What ``uns["rows"]`` says in a file of latents of sets: they share the cell, and are judged after centering."""


@in_one_line
def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, print the collapse table; 1 for a file that is no table of embeddings."""
    given = _parser().parse_args(arguments)
    collapsed = validate(
        given.file, given.ids, given.type, given.out, given.json, _bounds(given), centered=given.centered
    )
    return COLLAPSED if collapsed and given.fail_on_collapse else 0


def validate(
    file: Path,
    ids: str = "id",
    node_type: str | None = None,
    out: Path | None = None,
    json: Path | None = None,
    bounds: FileBounds | None = None,
    centered: bool | None = None,
) -> bool:
    """Check one file, print the level of all nodes and of each type, and write page and JSON where they are wanted.

    Args:
        file: See ``read_embeddings``.
        ids: Column of the ids.
        node_type: Column of the node types.
        out: Page to write.
        json: File to write the same to, level, reasons and bounds by node type.
        bounds: Of the levels; none: the usual ones.
        centered: Whether the cosine is judged after centering; none: where the rows are sets, see ``holds_sets``.

    Returns:
        Whether all nodes or any node type have collapsed.

    Raises:
        InputError: NaN, vectors of zeros, ids that stand twice, a single node, or a file that can't be read.
    """
    from torchcell.io.cache import write_json
    from torchcell.io.console import Console
    from torchcell.io.embeddings import read_embeddings
    from torchcell.knowledge_graph.embedding_health import FileBounds, embedding_health, health_guard
    from torchcell.knowledge_graph.report import health_line, health_sections, print_health, write_health_page

    for flag, path, ending in (("--out", out, ".html"), ("--json", json, ".json")):
        if path is not None and path.suffix != ending:
            raise InputError(f"{flag} {path}: the name must end in {ending}")
        if path is not None:
            refuse_unwritable(path, flag)
    table = read_embeddings(file, ids, node_type).validate(file)
    bounds = replace(bounds or FileBounds(), centered=holds_sets(file) if centered is None else centered)
    found = embedding_health(table.values, table.node_type, bounds=bounds, whole=True)
    print_health(found)
    if bounds.centered:
        Console().print("cosines are judged after centering, for rows that share something by design", soft_wrap=True)
    written = []
    if out is not None:
        sections = health_sections(table.values, table.node_type, found)
        written += write_health_page(out, found, sections, {"file": str(file), "nodes": len(table)})
    if json is not None:
        line = health_line(found)
        write_json(json, {"file": str(file), "level": line.partition(":")[0], "text": line} | health_guard(found))
        written.append(json)
    for path in written:
        Console().print(f"wrote {path}", soft_wrap=True, highlight=False)
    return any(one.status == "collapsed" for one in found)


def holds_sets(file: Path) -> bool:
    """Whether ``torchcell.embed`` wrote the file, and its rows are perturbation sets."""
    if file.suffix != ".h5ad":
        return False
    import h5py

    from torchcell.io.hdf5 import open_hdf5

    with open_hdf5(file) as stored:
        rows = stored.get("uns/rows")
        return isinstance(rows, h5py.Dataset) and rows.shape == () and rows[()] == SETS.encode()


def _bounds(given: argparse.Namespace) -> FileBounds:
    """The bounds of the command line."""
    from torchcell.knowledge_graph.embedding_health import FileBounds

    return FileBounds(**{one.name: getattr(given, one.name) for one in fields(FileBounds) if one.name != "centered"})


def _parser() -> argparse.ArgumentParser:
    from torchcell.knowledge_graph.embedding_health import FileBounds

    parser = argparse.ArgumentParser(
        prog="python -m torchcell.embed validate",
        description="Check a file of embeddings and print for all nodes and for each node type whether they are "
        "healthy, narrow or collapsed, and by which bound. Read are h5ad (X, obs), npz (ids, vectors, optional "
        "types), parquet, CSV and TSV (a row a node, a column a dimension).",
    )
    parser.add_argument("file", type=Path, help="the embeddings")
    parser.add_argument("--ids", default="id", metavar="COLUMN", help="column of the ids (id); else an h5ad's index")
    parser.add_argument("--type", metavar="COLUMN", help="column of the node types (type, where there is one)")
    parser.add_argument("--out", type=Path, metavar="PAGE", help="write a page with histograms and PCA plots, .html")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write levels, reasons and bounds, .json")
    parser.add_argument(
        "--fail-on-collapse", action="store_true", help=f"leave with status {COLLAPSED} if any node type has collapsed"
    )
    usual, group = FileBounds(), parser.add_argument_group("bounds of the levels, with m = min(dimensions, nodes - 1)")
    for name, text in (
        ("collapsed_cosine", "collapsed: mean cosine above, with few components"),
        ("collapsed_components", "few components: fewer than this, and than SHARE m, for 90 %% of the variance"),
        ("collapsed_within", "collapsed: mean cosine within a node type above"),
        ("healthy_cosine", "narrow: mean cosine above"),
        ("healthy_components", "narrow: fewer components than this, and than SHARE m"),
        ("share", "of m"),
    ):
        default = getattr(usual, name)
        flag = f"--{name.replace('_', '-')}"
        group.add_argument(flag, type=float, default=default, metavar="NUMBER", help=f"{text} ({default})")
    group.add_argument(
        "--centered",
        action=argparse.BooleanOptionalAction,
        help="judge the cosine after the mean is taken away (default: for sets written by torchcell.embed, which share "
        "the wild-type cell)",
    )
    return parser


SMOOTHING = 0.1
"""Added to each degree, so that the product tells nodes apart that have no training edge."""


@dataclass(frozen=True, eq=False)
class EmbeddedNodes:
    """Embeddings of all nodes and what is known of them.

    Attributes:
        table: The embeddings under their names.
        health: A row a node type.
        energies: Dirichlet energy by edge type; empty where no edges are known.
    """

    table: EmbeddingTable
    health: list[TypeHealth]
    energies: dict[str, float]

    @property
    def collapsed(self) -> bool:
        """Whether any node type is."""
        return any(one.status == "collapsed" for one in self.health)

    def sections(self, seed: int = 0) -> list[Section]:
        """What a page says of them."""
        return health_sections(self.table.values, self.table.node_type, self.health, self.energies, seed)

    @property
    def finding(self) -> str:
        """Which node types have collapsed, in words."""
        sick = [one.node_type for one in self.health if one.status == "collapsed"]
        return f"the embeddings of {some(sick)}"

    def guard(self) -> dict[str, Any]:
        """What ``metrics.json`` says of them."""
        return health_guard(self.health)


def inspect(model: Model, table: pd.DataFrame, seed: int) -> Inspection:
    """What the nodes and the edge types of a model that was just scored show; see ``Task.inspect``."""

    def relations() -> list[Section]:
        supervised = model.spec.supervised if isinstance(model.spec, KnowledgeGraphSpec) else ()
        return relation_sections(table, type(model).__name__, supervised)

    if type(model).node_embeddings is Model.node_embeddings:
        return Inspection(sections={"Each relation": relations})
    nodes = embed_nodes(model, type(model).__name__, tabulated_skill(table, model))
    sections = {"Each relation": relations, "Embeddings": lambda: nodes.sections(seed)}
    return Inspection((nodes.finding,) if nodes.collapsed else (), {"embeddings": nodes.guard()}, sections)


@stage("embedding the nodes")
def embed_nodes(model: Model, source: str | Path, links: Sequence[LinkSkill] = ()) -> EmbeddedNodes:
    """The nodes' embeddings from the present weights, and their health.

    Args:
        model: One that embeds nodes; its mode is as before when this returns.
        source: What the model is called in messages, e.g. its checkpoint.
        links: Skill on held-out links, where it is known.

    Raises:
        InputError: The model embeds no nodes; an embedding that is not finite.
    """
    trained = model.training
    with torch.no_grad():
        x_ND = model.eval().node_embeddings()
    model.train(trained)
    if x_ND is None:
        raise InputError(f"{type(model).__name__} embeds no nodes of a knowledge graph")
    graph = TypedGraph.from_plain(_spec_of(model).knowledge_graph)
    values = x_ND.detach().float().cpu().numpy()  # it may be a parameter as it stands
    table = EmbeddingTable(graph.node_id, graph.node_name, node_types(graph), values).validate(source, zeros=True)
    edges = {name: tuple(end.numpy() for end in graph.edges(name)) for name in graph.edge_types}
    energies = dirichlet_energies(values, {name: (ends[0], ends[1]) for name, ends in edges.items()})
    bounds = getattr(model, "health", TRAINING)  # a model may declare its own
    return EmbeddedNodes(table, embedding_health(values, table.node_type, links, bounds), energies)


def node_types(graph: TypedGraph) -> np.ndarray:
    """Node type of each node [N], by name."""
    return np.repeat(np.array(graph.node_types), np.diff(np.asarray(graph.bounds)))


def held_out_skill(model: Model, data: RecordDataModule, part: str, batch_size: int) -> list[LinkSkill]:
    """AUROC of held-out links against degree-matched non-links, of the model and of the degree product.

    The degrees are those of the model's own graph, which holds no link of the part.

    Args:
        model: On the device where it computes.
        data: The links that it was trained on, with their split.
        part: One of the split's.
        batch_size: Candidates at once.
    """
    graph = TypedGraph.from_plain(_spec_of(model).knowledge_graph)
    order = BatchOrder(torch.from_numpy(data.split.index(part)), shuffle=False)
    degree = {name: graph.degree(name) for name in _spec_of(model).supervised}
    scores, products, labels = [], [], []
    with torch.inference_mode():
        for batch in track(PackedLoader(data.packed, order, batch_size), "links"):
            # log-odds: probabilities would tie the surest ones
            scores.append(model(batch.blind().to(model.device)).float().cpu())
            labels.append(batch.target)
            ends = [
                (of_source[batch.source_node] + SMOOTHING) * (of_target[batch.target_node] + SMOOTHING)
                for of_source, of_target in degree.values()
            ]
            products.append(torch.stack(ends, dim=1))
    label, score, product = (torch.cat(parts).double().numpy() for parts in (labels, scores, products))
    found = []
    for k, name in enumerate(degree):
        t = model.spec.outputs.index(f"{name}_matched")
        known = ~np.isnan(label[:, t])
        values = [_auroc(label[known, t], each[known]) for each in (score[:, t], product[:, k])]
        found.append(LinkSkill(name, _ends(graph, name), *values))
    return found


def tabulated_skill(table: pd.DataFrame, model: Model) -> list[LinkSkill]:
    """The same from a table of metrics, for the edge types of which it has both scores.

    Args:
        table: Long, with ``system, metric, value``, as in ``metrics.csv``.
        model: One that embeds nodes.
    """
    values = table.set_index(["system", "metric"])["value"]
    found, graph = [], TypedGraph.from_plain(_spec_of(model).knowledge_graph)
    for name in _spec_of(model).supervised:
        keys = [(system, f"{name}_matched/auroc") for system in (type(model).__name__, "degree_product")]
        if all(key in values.index for key in keys):
            found.append(LinkSkill(name, _ends(graph, name), *(float(values[key]) for key in keys)))
    return found


def write_nodes(found: EmbeddedNodes, out: Path, about: dict[str, Any], seed: int = 0) -> list[Path]:
    """Write the embeddings, and the page of their health with its figures beside them.

    Args:
        found: The nodes.
        out: Of the embeddings; the page is called alike, ``.html``.
        about: What the h5ad and the page tell of the checkpoint.
        seed: Of what the figures draw.
    """
    found.table.write(out, about | {"health": health_table(found.health).set_index("type")})
    facts = about | {"nodes": len(found.table), "dimensions": found.table.values.shape[1]}
    return [out, *write_health_page(out.with_suffix(".html"), found.health, found.sections(seed), facts)]


def _ends(graph: TypedGraph, edge_type: str) -> tuple[str, str]:
    source, target = graph.ends[edge_type]
    return graph.node_types[source], graph.node_types[target]


def _auroc(label: np.ndarray, score: np.ndarray) -> float:
    return float(auroc(label, score, Weights.ones(len(label)))[0])


def _spec_of(model: Model) -> KnowledgeGraphSpec:
    """The spec of a model of a knowledge graph; any other model is an error."""
    if not isinstance(model.spec, KnowledgeGraphSpec):
        raise InputError(f"{type(model).__name__} ranks no links; source and target are for a knowledge graph")
    return model.spec


HELD = ("val", "test")
"""Parts whose links the model's graph does not hold; all that it holds were known in training."""


def ranked_links(
    model: Model,
    edge_type: str | None = None,
    source: str | None = None,
    target: str | None = None,
    top: int | None = 20,
    held_out: pd.DataFrame | None = None,
    batch_size: int = 8192,
    prior: Prior | None = None,
) -> pd.DataFrame:
    """All candidates for the other end of a link, best first.

    Args:
        model: One of links, on the device where it computes.
        edge_type: Of the links; may be left out where one edge type is supervised.
        source: Id or name of the node whose targets are ranked, e.g. a compound's diseases.
        target: Likewise of the node whose sources are ranked; one of the two is given.
        top: How many are listed; none for all of them. Ranks are among all.
        held_out: Links that the model's graph does not have, from ``held_out_links``.
        batch_size: Candidates at once.
        prior: The model's, if it has one.

    Returns:
        ``rank, source, source_name, edge_type, target, target_name, score, known, note``. The score is no probability
        a link, since training drew its non-links; ``known`` is the part that a known link is of, train where the
        model's graph holds it, and empty for a link that nobody knows of; ``note`` says of a node without an edge in
        that graph, and of an edge type that was not trained.

    Raises:
        InputError: A model without nodes, an unknown edge type or node, a node of another type, a name of several.
    """
    spec = _spec_of(model)
    if (source is None) == (target is None):
        raise InputError("give either source, to rank its targets, or target, to rank its sources")
    if top is not None and top < 1:
        raise InputError(f"top={top}: must be 1 or more, or null for all")
    graph = TypedGraph.from_plain(spec.knowledge_graph)
    edge_type = _edge_type(graph, spec.supervised, edge_type)
    side, given = (0, source) if source is not None else (1, target)
    node = find_node(graph, str(given), graph.ends[edge_type][side], ("source", "target")[side], edge_type)
    other = graph.ends[edge_type][1 - side]
    candidates = np.arange(graph.bounds[other], graph.bounds[other + 1])
    candidates = candidates[candidates != node]
    fixed = np.full_like(candidates, node)
    ends = (fixed, candidates) if side == 0 else (candidates, fixed)
    score = link_scores(model, edge_type, *ends, batch_size, prior)
    order = np.argsort(-score, kind="stable")[:top]
    first, second = ends[0][order], ends[1][order]
    table: dict[str, Any] = {
        "rank": np.arange(1, len(order) + 1),
        "source": graph.node_id[first],
        "source_name": graph.node_name[first],
        "edge_type": edge_type,
        "target": graph.node_id[second],
        "target_name": graph.node_name[second],
        "score": model.tabulate(torch.from_numpy(score[order])).numpy(),
        "known": _known(graph, edge_type, first, second, held_out),
    }
    notes = link_notes(np.full(len(order), edge_type), table["source"], table["target"], spec)
    return pd.DataFrame(table | {"note": joined(notes, len(order))})


def link_scores(
    model: Model,
    edge_type: str,
    source_P: np.ndarray,
    target_P: np.ndarray,
    batch_size: int = 8192,
    prior: Prior | None = None,
) -> np.ndarray:
    """Log-odds of P pairs of nodes, float32 [P], by the output for uniform non-edges; probabilities would tie the
    surest ones.

    Args:
        model: One of links; its mode is as before when this returns.
        edge_type: Of the links.
        source_P: Positions among the nodes of the spec's knowledge graph.
        target_P: Likewise.
        batch_size: Pairs at once.
        prior: The model's, if it has one; of an edge type that was not trained it says nothing.
    """
    own, said = f"{edge_type}_uniform", None
    if prior is not None:
        said = torch.zeros(len(source_P), len(model.spec.outputs) + model.spec.n_columns)
        said[:, : len(model.spec.outputs)] = torch.nan
        if own in model.spec.outputs:
            said = prior.predict(pairs_of(_spec_of(model), edge_type, source_P, target_P))
    column = model.spec.outputs.index(own) if own in model.spec.outputs else 0
    code = sorted(_spec_of(model).knowledge_graph.ends).index(edge_type)
    n_outputs = len(model.spec.outputs)
    trained, parts = model.training, []
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(source_P), batch_size):
            source, target = (torch.from_numpy(end[start : start + batch_size]) for end in (source_P, target_P))
            batch = LinkBatch(
                target=torch.full((len(source), n_outputs), torch.nan),
                sample=torch.arange(start, start + len(source)),
                source_node=source,
                target_node=target,
                edge_type=torch.full_like(source, code),
                prior=None if said is None else said[start : start + len(source)],
            ).to(model.device)
            parts.append(model(batch)[:, column].float().cpu())
    model.train(trained)
    return torch.cat(parts).numpy() if parts else np.empty(0, dtype=np.float32)


def held_out_links(record: Links, part: np.ndarray) -> pd.DataFrame:
    """The known links of validation and test, as ``source, edge_type, target, part``.

    Args:
        record: All candidates of the run's data.
        part: Part of each.
    """
    kept = np.flatnonzero(record.positive & np.isin(part, HELD))
    ids = record.node_id
    return pd.DataFrame(
        {
            "source": ids[record.source_index[kept]],
            "edge_type": record.edge_type[kept],
            "target": ids[record.target_index[kept]],
            "part": part[kept],
        }
    )


def find_node(graph: TypedGraph, given: str, node_type: int, end: str, edge_type: str) -> int:
    """Position of the node with this id, or of the one of the node type with this name in whatever case.

    Raises:
        InputError: No such node, with the nearest; one of another node type; a name of several.
    """
    named = f"{end}={given}"
    if (at := int(graph.position_of([given])[0])) >= 0:
        own = int(np.searchsorted(np.asarray(graph.bounds), at, side="right")) - 1
        if own != node_type:
            raise InputError(
                f"{named} is a {graph.node_types[own]}, but the {end} of {edge_type} is a "
                f"{graph.node_types[node_type]}; name one, or the edge type that is meant"
            )
        return at
    first, last = graph.bounds[node_type], graph.bounds[node_type + 1]
    names = graph.node_name[first:last].tolist()
    found = [first + i for i, name in enumerate(names) if name.casefold() == given.casefold()]
    if not found:
        hint = near(given, [*names, *graph.node_id[first:last].tolist()])
        said = f"; the nearest are {hint}" if hint else f", e.g. {some(graph.node_id[first:last][:3])}"
        raise InputError(f"{named}: no {graph.node_types[node_type]} has this id or name{said}")
    if len(found) > 1:
        ids = some(graph.node_id[found])
        raise InputError(f"{named} is the name of {len(found)} nodes: {ids}; give the id of one")
    return found[0]


def _edge_type(graph: TypedGraph, supervised: Sequence[str], given: str | None) -> str:
    """The edge type that is wanted, or the only one that is supervised."""
    if given is None and len(supervised) == 1:
        return supervised[0]
    if given is None:
        raise InputError(f"{len(supervised)} edge types are supervised; name one by edge_type=: {some(supervised, 30)}")
    if given not in graph.edge_types:
        hint = near(given, graph.edge_types) or list(graph.edge_types)
        raise InputError(f"edge_type={given}: the model's graph has none such; the nearest are {hint}")
    return given


def _known(
    graph: TypedGraph, edge_type: str, source: np.ndarray, target: np.ndarray, held_out: pd.DataFrame | None
) -> np.ndarray:
    """The part of each link, empty where it is not known."""
    number = graph.edge_number(edge_type, torch.from_numpy(source), torch.from_numpy(target))
    known = np.where(number.numpy() >= 0, "train", "").astype("<U5")
    if held_out is None:
        return known
    part = {}
    for row in held_out[held_out["edge_type"] == edge_type].itertuples():
        part[row.source, row.target] = row.part
        if edge_type in graph.symmetric:
            part[row.target, row.source] = row.part
    pairs = zip(graph.node_id[source].tolist(), graph.node_id[target].tolist(), strict=True)
    return np.array([part.get(pair, was) for pair, was in zip(pairs, known.tolist(), strict=True)], dtype=str)
