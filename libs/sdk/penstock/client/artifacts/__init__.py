"""Artifacts and their values: `Client.artifacts`."""
