"""Lineage of artifacts, and the OpenLineage emitter."""
