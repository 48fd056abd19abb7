"""Local_runs."""
