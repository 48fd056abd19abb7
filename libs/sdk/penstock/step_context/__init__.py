"""Step_context."""
