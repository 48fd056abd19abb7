"""The triggers service: matches events with deployments, starts their runs, and wakes steps that wait for events."""
