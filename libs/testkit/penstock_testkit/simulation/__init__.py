"""A simulated platform around the run state machine."""
