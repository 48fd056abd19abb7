"""Grants places to put and get artifacts, and has previews of them made."""
