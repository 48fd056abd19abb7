"""Registered models: versions, aliases, gates, events about their changes."""
