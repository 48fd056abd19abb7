"""All services of Penstock in one process, with an embedded NATS server: the platform on one machine."""
