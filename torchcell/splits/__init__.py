"""Who is in train, validation and test: a hashed table, never a bare seed."""
