"""Records -> batches; one file per representation."""
