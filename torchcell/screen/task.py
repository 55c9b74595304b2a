"""Screens: perturbed genes and scalar phenotypes, as the shared packages see them."""

from torchcell.core.task import Task
from torchcell.screen.splits import SPLITS

TASK = Task("screen", splits=SPLITS)
