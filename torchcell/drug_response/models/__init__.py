"""Models of drug response."""
