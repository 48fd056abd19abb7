"""Credentials on NATS: accounts, the auth callout that admits runners and publishers, and their permissions."""
