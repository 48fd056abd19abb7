"""HTTP requests to the platform."""
