"""Limits of concurrent steps and runs."""
