"""Cached results of steps: the key of a call, and which earlier result is used."""
