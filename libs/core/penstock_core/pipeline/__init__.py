"""Compiled pipelines: the intermediate representation, its checks, conditions, and how values are represented."""
