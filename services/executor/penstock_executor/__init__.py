"""The executor: runs the attempts of a pool."""
