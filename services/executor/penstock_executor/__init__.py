"""Runs the attempts of its pool."""
