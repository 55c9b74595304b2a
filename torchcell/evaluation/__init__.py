"""Results, metrics, bootstrap, checks, verdict: one evaluator for all tasks."""
