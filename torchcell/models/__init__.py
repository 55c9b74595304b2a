"""One Lightning module a file, each on the small base class in ``base.py``."""
