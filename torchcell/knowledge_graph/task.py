"""Knowledge graphs: typed nodes, edges, missing edges, as the shared packages see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchcell.core.task import Inspection, Task
from torchcell.evaluation.registry import BINARY
from torchcell.knowledge_graph.metrics import RANKING
from torchcell.knowledge_graph.spec import KnowledgeGraphSpec
from torchcell.knowledge_graph.splits import SPLITS

if TYPE_CHECKING:
    import pandas as pd

    from torchcell.core.model import Model


def _inspect(model: Model, table: pd.DataFrame, seed: int) -> Inspection:
    from torchcell.knowledge_graph.embed import inspect  # it needs the datamodule, which needs this module

    return inspect(model, table, seed)


TASK = Task(
    "knowledge_graph",
    spec=KnowledgeGraphSpec,
    metrics=(RANKING, BINARY),
    splits=SPLITS,
    inspect=_inspect,
)
