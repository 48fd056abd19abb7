"""Webhooks of other systems: verified, stored as events."""
