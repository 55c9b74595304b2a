"""One function a metric, and a registry that knows its best and its no-skill value."""
