"""Runs of pipelines in the caller's own process, for tests and debugging."""
