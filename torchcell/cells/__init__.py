"""A perturbation -> expression of single cells."""
