"""Tracked."""
