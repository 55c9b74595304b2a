"""Models of single cells."""
