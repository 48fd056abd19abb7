"""NATS JetStream: the server as a child process, the bootstrap of streams, the run log, consumers and buckets."""
