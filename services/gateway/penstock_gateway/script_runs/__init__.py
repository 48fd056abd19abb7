"""Runs of scripts on other machines."""
