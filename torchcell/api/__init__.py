"""What ``import torchcell as tc`` offers a notebook: ``fit``, ``load``, ``Run`` and ``records``."""
