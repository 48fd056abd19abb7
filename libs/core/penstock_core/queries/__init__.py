"""Queries about runs: search, comparison, metric series."""
