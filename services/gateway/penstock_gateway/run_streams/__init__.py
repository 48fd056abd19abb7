"""Streams of one run: facts, output, history."""
