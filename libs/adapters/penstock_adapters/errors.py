"""The errors of artifact stores. A store that is away raises `UnavailableError` instead: a later call may succeed.

ArtifactError               final: the same call fails again until something is changed
├── ArtifactMissing         there is no object of this digest
├── ArtifactDamaged         a stored object's bytes are not the ones that were stored
├── ArtifactMismatch        bytes that shall be stored have not the digest or size they were announced with
├── ArtifactTooLarge        bytes that shall be stored are more than the limit
├── StoreFull               the disk, or a quota on it, has no room left
└── StoreRefused            the store is set up wrongly: address, bucket, credentials, permissions
"""

from __future__ import annotations

from penstock_core.errors import PenstockError


class ArtifactError(PenstockError):
    """A call of an artifact store failed for good."""


class ArtifactMissingError(ArtifactError, LookupError):
    """There is no object of this digest."""

    def __init__(self, sha256: str, where: str) -> None:
        self.sha256 = sha256
        super().__init__(f"artifact {sha256} is not in the store ({where})")


class ArtifactDamagedError(ArtifactError):
    """A stored object's bytes are not the ones that were stored.

    Attributes:
        sha256: the object's name, which is the digest that its bytes should have.
        found: the digest that they have.
    """

    def __init__(self, sha256: str, found: str, where: str) -> None:
        self.sha256 = sha256
        self.found = found
        super().__init__(
            f"artifact {sha256} is damaged: its bytes in {where} have the SHA-256 {found} instead of {sha256}. "
            "Remove the object and run the step that made it again"
        )


class ArtifactMismatchError(ArtifactError, ValueError):
    """Bytes that shall be stored have not the digest or size they were announced with; nothing was stored."""


class ArtifactTooLargeError(ArtifactError, ValueError):
    """Bytes that shall be stored are more than the limit; nothing was stored."""

    def __init__(self, sha256: str, limit: int) -> None:
        self.limit = limit
        super().__init__(f"artifact {sha256} is larger than the limit of {limit} bytes; nothing was stored")


class StoreFullError(ArtifactError):
    """The disk, or a quota on it, has no room left; nothing half-written is visible."""


class StoreRefusedError(ArtifactError):
    """The store is set up wrongly: address, bucket, credentials or permissions."""
