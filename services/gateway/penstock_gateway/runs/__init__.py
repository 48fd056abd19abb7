"""Runs: submit, read, search, cancel, rerun."""
