"""Events that steps wait for."""
