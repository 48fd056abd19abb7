"""A Docker engine for tests, and images made from the files of this machine: no registry, no network."""
