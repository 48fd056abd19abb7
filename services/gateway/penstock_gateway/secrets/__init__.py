"""Secrets: set, listed, limited, deleted. No operation returns a value."""
