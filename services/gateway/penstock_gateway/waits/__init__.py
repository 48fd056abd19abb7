"""Open questions of steps, their answers, and signed links to them."""
