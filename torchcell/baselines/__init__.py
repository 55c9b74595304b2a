"""What any model must beat, scored by the same code."""
