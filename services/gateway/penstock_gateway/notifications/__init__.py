"""Notifications of deployments: decided on the events of their runs, and sent."""
