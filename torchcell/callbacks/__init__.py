"""Guards (collapse, loss share, non-finite), curriculum, progress."""
