"""A transformer over gene tokens of a set of cells."""
