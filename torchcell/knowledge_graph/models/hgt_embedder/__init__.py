"""Typed attention that embeds all nodes."""
