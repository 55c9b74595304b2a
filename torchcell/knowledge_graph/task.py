"""Knowledge graphs: typed nodes, edges, missing edges, as the shared packages see them."""

from torchcell.core.task import Task
from torchcell.knowledge_graph.splits import SPLITS

TASK = Task("knowledge_graph", splits=SPLITS)
