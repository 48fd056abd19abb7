"""Environments that pipelines declare, and their builds."""
