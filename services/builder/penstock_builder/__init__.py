"""Registers pipeline versions and their environments."""
