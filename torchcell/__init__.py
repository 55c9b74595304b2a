"""torchcell predicts what a perturbation does to a cell.

Importing the package loads nothing heavy; import the module you need, e.g. ``torchcell.screen.record``.
"""

__version__ = "0.2.0"
