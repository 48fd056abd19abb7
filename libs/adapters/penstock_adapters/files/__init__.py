"""Artifacts in a local folder.

Layout: `<root>/sha256/<first 2 hex>/<64 hex>`; temporary files in `<root>/tmp/`. The SDK's `penstock.store` writes the
same layout from within steps.
"""

from penstock_adapters.files.store import FolderArtifacts

__all__ = ["FolderArtifacts"]
