"""Building blocks: plain torch, no Lightning, no config; one operator a file."""
