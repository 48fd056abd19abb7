"""Grants places to put and get artifacts."""
