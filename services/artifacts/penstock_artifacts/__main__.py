"""`python -m penstock_artifacts`: one replica of the artifacts service."""

from __future__ import annotations

import sys

from penstock_artifacts.app import build
from penstock_artifacts.settings import ArtifactsSettings
from penstock_servicekit.app import run_service

if __name__ == "__main__":
    sys.exit(run_service("artifacts", ArtifactsSettings, build))
