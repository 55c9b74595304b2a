"""Screens: perturbed genes and scalar phenotypes, as the shared packages see them."""

from torchcell.core.task import Task
from torchcell.evaluation.registry import BINARY, REGRESSION
from torchcell.screen.foreign import FORMAT
from torchcell.screen.spec import ScreenSpec
from torchcell.screen.splits import SPLITS

TASK = Task(
    "screen",
    spec=ScreenSpec,
    metrics=(REGRESSION, BINARY),
    splits=SPLITS,
    foreign=FORMAT,
)
