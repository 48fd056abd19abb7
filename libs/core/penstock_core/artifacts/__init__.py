"""Artifacts: the layout of their folder, folder manifests, and artifacts stored by running attempts."""
