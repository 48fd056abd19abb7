"""Source_code."""
