"""Processes, devices, SLURM and signals."""
