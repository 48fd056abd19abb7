"""Python environments of steps: what is installed, what a step declares, and the lock of a declaration."""
