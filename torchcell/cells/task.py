"""Single cells: a perturbation and expression, as the shared packages see them."""

from torchcell.cells.foreign import FORMAT
from torchcell.cells.metrics import CELLS
from torchcell.cells.spec import CellsSpec
from torchcell.cells.splits import SPLITS
from torchcell.core.task import Task

TASK = Task("cells", spec=CellsSpec, metrics=(CELLS,), splits=SPLITS, foreign=FORMAT)
