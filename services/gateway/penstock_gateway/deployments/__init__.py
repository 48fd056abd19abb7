"""Deployments: definitions and revisions, and what they decided on events."""
