"""Secrets: the encrypted store of the platform, and what else provides values."""
