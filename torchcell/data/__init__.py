"""Raw public files -> validated, named records. Knows files, no tensors of a model."""
