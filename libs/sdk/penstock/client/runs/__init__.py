"""Runs: `Client.runs`."""
