"""Operators that several tasks share: plain torch, no Lightning, no config."""
