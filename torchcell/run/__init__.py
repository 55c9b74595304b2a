"""One run: its config, its folder, its checkpoints, and the scoring at its end."""
