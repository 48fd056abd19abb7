"""Builds of versions from Git repositories, and of environments."""
