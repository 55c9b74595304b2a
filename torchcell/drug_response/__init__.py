"""A drug on a cell line -> a bulk expression profile."""
