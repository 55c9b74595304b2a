"""A graph network on the perturbed cell."""
