"""Opens the artifact store at a URL."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from penstock_adapters.errors import StoreRefusedError
from penstock_adapters.files import FolderArtifacts
from penstock_adapters.s3 import S3Artifacts, S3Options
from penstock_core.ports import ArtifactStore, Marks


def open_store(url: str, home: Path, s3: S3Options | None = None, marks: Marks | None = None) -> ArtifactStore:
    """Return the store at `url`; call its `prepare` before use.

    Args:
        url: empty or `folder:` for the folder `artifacts` in the state folder, `folder:/some/path` for another one,
            `s3://bucket/prefix` for a bucket.
        home: the state folder.
        s3: endpoint, region and credentials of the bucket; its bucket and prefix are taken from `url`.
        marks: coordinate writers of a bucket with garbage collection.

    Raises:
        StoreRefusedError: the URL is invalid.
    """
    scheme, _, rest = url.partition(":")
    if scheme in ("", "folder"):
        return FolderArtifacts(Path(rest) if rest else home / "artifacts")
    if scheme == "s3":
        parts = urlsplit(url)
        if parts.netloc and not (parts.query or parts.fragment or "@" in parts.netloc):
            options = s3 or S3Options(bucket=parts.netloc)
            return S3Artifacts(replace(options, bucket=parts.netloc, prefix=parts.path.strip("/")), marks)
    raise StoreRefusedError(
        f"{url[:200]!r} is not a URL of an artifact store: use 'folder:/some/path' or 's3://bucket/prefix', "
        "or leave it empty for a folder in the state folder"
    )
