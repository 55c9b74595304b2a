"""What a trained model makes of the nodes of a knowledge graph: table, health, pages, skill on held-out links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from torchcell.data.embedding_table import EmbeddingTable
from torchcell.data.errors import InputError, some
from torchcell.datamodules.batch import BatchOrder, PackedLoader
from torchcell.graph.typed_graph import TypedGraph
from torchcell.metrics.dirichlet import dirichlet_energies
from torchcell.metrics.embedding_health import KindHealth, LinkSkill, embedding_health, health_guard
from torchcell.metrics.embedding_levels import TRAINING
from torchcell.metrics.scalar import auroc
from torchcell.metrics.weights import Weights
from torchcell.models.base import Model
from torchcell.report.embedding_health import health_sections, health_table, write_health_page
from torchcell.report.sections import Section
from torchcell.run import assemble, checkpoint
from torchcell.run.progress import stage, track

SMOOTHING = 0.1
"""Added to each degree, so that the product tells nodes apart that have no training edge."""


@dataclass(frozen=True, eq=False)
class EmbeddedNodes:
    """Embeddings of all nodes and what is known of them.

    Attributes:
        table: The embeddings under their names.
        health: A row a kind of node.
        energies: Dirichlet energy by metaedge; empty where no edges are known.
    """

    table: EmbeddingTable
    health: list[KindHealth]
    energies: dict[str, float]

    @property
    def collapsed(self) -> bool:
        """Whether any kind is."""
        return any(one.status == "collapsed" for one in self.health)

    def sections(self, seed: int = 0) -> list[Section]:
        """What a page says of them."""
        return health_sections(self.table.values, self.table.node_kind, self.health, self.energies, seed)

    @property
    def finding(self) -> str:
        """Which kinds have collapsed, in words."""
        sick = [one.kind for one in self.health if one.status == "collapsed"]
        return f"the embeddings of {some(sick)}"

    def guard(self) -> dict[str, Any]:
        """What ``metrics.json`` says of them."""
        return health_guard(self.health)


def scored_nodes(model: Model, table: pd.DataFrame) -> EmbeddedNodes | None:
    """The nodes of a model that was just scored; none from a model that embeds no nodes.

    Args:
        model: With the weights that were scored.
        table: Its metrics and its baselines', see ``tabulated_skill``.
    """
    if type(model).node_embeddings is Model.node_embeddings:
        return None
    return embed_nodes(model, type(model).__name__, tabulated_skill(table, model))


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
    graph = TypedGraph.from_plain(model.spec.extras["knowledge_graph"])
    values = x_ND.float().cpu().numpy()
    table = EmbeddingTable(graph.node_id, graph.node_name, node_kinds(graph), values).validate(source, zeros=True)
    edges = {name: tuple(end.numpy() for end in graph.edges(name)) for name in graph.metaedges}
    energies = dirichlet_energies(values, {name: (ends[0], ends[1]) for name, ends in edges.items()})
    bounds = getattr(model, "health", TRAINING)  # a model may declare its own
    return EmbeddedNodes(table, embedding_health(values, table.node_kind, links, bounds), energies)


def node_kinds(graph: TypedGraph) -> np.ndarray:
    """Kind of each node [N], by name."""
    return np.repeat(np.array(graph.kinds), np.diff(np.asarray(graph.bounds)))


def held_out_skill(
    saved: checkpoint.Checkpoint,
    model: Model,
    part: str,
    batch_size: int,
    trust: Sequence[str] = (),
    data_changed: str = "error",
) -> list[LinkSkill]:
    """AUROC of held-out links against degree-matched non-links, of the model and of the degree product.

    The degrees are those of the model's own graph, which holds no link of the part.

    Args:
        saved: The checkpoint, whose config rebuilds the data.
        model: On the device where it computes.
        part: One of the split's.
        batch_size: Candidates at once.
        trust: Further packages whose classes the config may name.
        data_changed: ``allow`` links that changed since training, else ``error``.
    """
    data = assemble.datamodule_of(saved, trust, data_changed)
    graph = TypedGraph.from_plain(saved.spec.extras["knowledge_graph"])
    order = BatchOrder(torch.from_numpy(data.split.index(part)), shuffle=False)
    degree = {name: graph.degree(name) for name in saved.spec.extras["supervised"]}
    scores, products, labels = [], [], []
    with torch.inference_mode():
        for batch in track(PackedLoader(data.packed, order, batch_size), "links"):
            scores.append(
                model(batch.to(model.device)).float().cpu()
            )  # log-odds: probabilities would tie the surest ones
            labels.append(batch.target)
            ends = [
                (of_source[batch.source_node] + SMOOTHING) * (of_target[batch.target_node] + SMOOTHING)
                for of_source, of_target in degree.values()
            ]
            products.append(torch.stack(ends, dim=1))
    label, score, product = (torch.cat(parts).double().numpy() for parts in (labels, scores, products))
    found = []
    for k, name in enumerate(degree):
        t = saved.spec.outputs.index(f"{name}_matched")
        held = ~np.isnan(label[:, t])
        values = [_auroc(label[held, t], each[held]) for each in (score[:, t], product[:, k])]
        found.append(LinkSkill(name, _ends(graph, name), *values))
    return found


def tabulated_skill(table: pd.DataFrame, model: Model) -> list[LinkSkill]:
    """The same from a table of metrics, for the metaedges of which it has both scores.

    Args:
        table: Long, with ``system, metric, value``, as in ``metrics.csv``.
        model: One that embeds nodes.
    """
    values = table.set_index(["system", "metric"])["value"]
    found, graph = [], TypedGraph.from_plain(model.spec.extras["knowledge_graph"])
    for name in model.spec.extras["supervised"]:
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
    found.table.write(out, about | {"health": health_table(found.health).set_index("kind")})
    facts = about | {"nodes": len(found.table), "dimensions": found.table.values.shape[1]}
    return [out, *write_health_page(out.with_suffix(".html"), found.health, found.sections(seed), facts)]


def _ends(graph: TypedGraph, metaedge: str) -> tuple[str, str]:
    source, target = graph.ends[metaedge]
    return graph.kinds[source], graph.kinds[target]


def _auroc(label: np.ndarray, score: np.ndarray) -> float:
    return float(auroc(label, score, Weights.ones(len(label)))[0])
