"""`python -m penstock_artifacts`: one replica of the artifacts service."""

from __future__ import annotations

import sys

from penstock_artifacts.app import build
from penstock_artifacts.settings import ArtifactsSettings
from penstock_servicekit import event_loop
from penstock_servicekit.app import serve

if __name__ == "__main__":
    settings = ArtifactsSettings()
    sys.exit(event_loop.run(serve("artifacts", settings, lambda context: build(context, settings))))
