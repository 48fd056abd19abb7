"""The HTTP API of Penstock."""
