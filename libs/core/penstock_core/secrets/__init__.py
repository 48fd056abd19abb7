"""Secrets by reference: names, who may use them, and how their values are masked. Values are never in facts."""
