"""A mixture of experts over molecule, dose and control."""
