"""`python -m penstock_standalone`: the platform on one machine."""

from __future__ import annotations

import sys

from penstock_standalone.main import main

if __name__ == "__main__":
    sys.exit(main())
