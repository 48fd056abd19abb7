"""Real servers, port suites, strategies and invariants for Penstock's tests."""
