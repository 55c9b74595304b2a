"""torchcell predicts what a perturbation does to a cell.

Importing the package loads nothing heavy; import the room you need, e.g. ``torchcell.data.screen``.
"""

__version__ = "0.1.0"
