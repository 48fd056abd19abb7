"""Causes and effects of runs and events."""
