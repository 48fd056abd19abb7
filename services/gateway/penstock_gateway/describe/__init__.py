"""Descriptions of the contracts as files: OpenAPI, AsyncAPI, JSON Schema. Not used at run time."""
