"""Warm workers: processes that hold a loaded pipeline and run the requests to an endpoint."""
