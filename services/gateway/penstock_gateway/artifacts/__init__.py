"""Artifacts: content-addressed objects."""
