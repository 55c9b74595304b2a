"""Files: sources with checksums, caches, one reader for all tables, errors."""
