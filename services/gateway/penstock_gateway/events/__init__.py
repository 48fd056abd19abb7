"""Events that start runs and that steps wait for."""
