"""Settings, logging, health and life cycle of a Penstock service."""
