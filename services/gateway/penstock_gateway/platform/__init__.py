"""Health, readiness and a description of the platform."""
