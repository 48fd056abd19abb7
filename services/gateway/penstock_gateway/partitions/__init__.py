"""Partitions of deployments, and backfills of them."""
