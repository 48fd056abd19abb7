"""`python -m penstock_builder`: one builder replica."""

from __future__ import annotations

import sys

from penstock_builder.app import build
from penstock_builder.settings import BuilderSettings
from penstock_servicekit.app import run_service

if __name__ == "__main__":
    sys.exit(run_service("builder", BuilderSettings, build))
