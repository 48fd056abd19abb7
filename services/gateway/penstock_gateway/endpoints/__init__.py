"""Endpoints: HTTP requests that run a deployment and are answered with its output."""
