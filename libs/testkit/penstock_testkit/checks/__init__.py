"""Invariants, properties and mutants of the run state machine."""
