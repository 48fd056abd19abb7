"""Transfers objects between presigned URLs and files of this machine. Blocks: call it in a thread."""

from __future__ import annotations

import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import IO

from penstock_core.errors import UnavailableError

_TIMEOUT = 60.0


def fetch_object(url: str, headers: Mapping[str, str]) -> IO[bytes]:
    """Return a file with the content of an HTTP URL, at its beginning. The caller verifies the digest.

    Raises:
        UnavailableError: the store does not deliver it.
    """
    file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 - the artifacts service made it
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
            shutil.copyfileobj(answer, file)
        file.seek(0)
    except (OSError, urllib.error.URLError) as error:
        file.close()
        raise UnavailableError(f"the artifact store does not deliver an object: {error}") from error
    return file


def send_object(url: str, headers: Mapping[str, str], file: IO[bytes], size: int) -> None:
    """Upload a file of `size` bytes, from its beginning, to an HTTP URL.

    Raises:
        UnavailableError: the store does not take it.
    """
    file.seek(0)
    sent = {**headers, "content-length": str(size)}
    try:
        request = urllib.request.Request(url, file, sent, method="PUT")  # noqa: S310 - the artifacts service made it
        with urllib.request.urlopen(request, timeout=_TIMEOUT):  # noqa: S310
            pass
    except urllib.error.HTTPError as error:
        if error.code not in (409, 412):  # another one uploaded the same object
            raise UnavailableError(f"the artifact store does not take an object: {error}") from error
    except (OSError, urllib.error.URLError) as error:
        raise UnavailableError(f"the artifact store does not take an object: {error}") from error
