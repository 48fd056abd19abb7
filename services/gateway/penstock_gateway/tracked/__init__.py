"""Runs of plain scripts, imported into the log."""
