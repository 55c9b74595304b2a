"""The wild-type cell: one multigraph, held once."""
