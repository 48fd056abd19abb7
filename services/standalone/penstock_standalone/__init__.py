"""All services of Penstock in one process, for one machine."""
