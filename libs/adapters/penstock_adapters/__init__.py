"""Adapters of Penstock, one folder per technology."""
