"""Run_streams."""
