"""Deployments: when and how pipelines run by themselves. Definitions, matching of events, windows, and decisions."""
