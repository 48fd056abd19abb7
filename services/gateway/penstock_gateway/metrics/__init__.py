"""Metric series of runs."""
