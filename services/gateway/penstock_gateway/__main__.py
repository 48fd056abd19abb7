"""`python -m penstock_gateway`: one gateway replica."""

from __future__ import annotations

import sys

from penstock_gateway.app import build
from penstock_gateway.settings import GatewaySettings
from penstock_servicekit.app import run_service

if __name__ == "__main__":
    sys.exit(run_service("gateway", GatewaySettings, build))
