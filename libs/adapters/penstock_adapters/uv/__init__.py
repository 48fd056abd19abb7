"""Environments made by uv: declarations are resolved to locks, locks are installed into virtual environments."""
