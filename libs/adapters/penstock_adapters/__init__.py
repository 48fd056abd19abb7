"""Adapters of Penstock, one folder a technology."""
