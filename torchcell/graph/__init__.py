"""The wild-type cell as one multigraph that all samples share."""
