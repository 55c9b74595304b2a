"""Typed nodes and edges -> embeddings and missing edges."""
