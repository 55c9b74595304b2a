"""Attention over CLS and all genes, drawn towards the networks."""
