"""`python -m penstock_builder`: one builder replica."""

from __future__ import annotations

import sys

from penstock_builder.app import build
from penstock_builder.settings import BuilderSettings
from penstock_servicekit import event_loop
from penstock_servicekit.app import serve

if __name__ == "__main__":
    settings = BuilderSettings()
    sys.exit(event_loop.run(serve("builder", settings, lambda context: build(context, settings))))
