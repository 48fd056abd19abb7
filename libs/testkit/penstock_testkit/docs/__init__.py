"""Documentation pages as tests, and pages generated from code."""
