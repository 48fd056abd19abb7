"""Registered pipeline versions."""
