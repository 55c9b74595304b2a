"""Perturbed genes -> scalar phenotypes."""
