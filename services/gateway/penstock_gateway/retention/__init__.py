"""Retention policies and the janitor's jobs."""
