"""The errors of the adapters. `retryable` and `user_fault` classify them as in `penstock_core.errors`.

UnavailableError                (core) a server did not answer in time [platform, retryable]
ArtifactError                   a call of an artifact store failed [platform]
├── ArtifactMissingError        there is no object with this digest [platform]
├── ArtifactDamagedError        the bytes of a stored object have another digest [platform]
├── ArtifactMismatchError       bytes to store have another digest or size than announced [user]
├── ArtifactTooLargeError       bytes to store exceed the limit [user]
├── StoreFullError              the disk, or a quota on it, is full [platform]
└── StoreRefusedError           the store is misconfigured: URL, bucket, credentials, permissions [platform]
    └── S3ResponseError         (s3.client) the S3 service answered with an error [platform]
TransferError                   (transfers) an artifact could not be downloaded or uploaded [platform]
BusError                        (nats.bus) JetStream refused a call [platform]
└── FactTooLargeError           (nats.run_log) a fact exceeds the limit of a message [user]
VersionTooLargeError            (nats.buckets.versions) a pipeline version exceeds the limit of a message [user]
UnreadableLimitsError           (nats.buckets.limits) the stored limits ledger has an unknown format [platform]
NatsServerError                 (nats.server) the embedded server could not be started [platform]
ScheduleError                   (cron_expressions) a cron expression or time zone is invalid [user]
DatabaseError                   (sql.errors) the database of the read model cannot be used [platform]
└── DatabaseDamagedError        (sql.errors) its file is damaged [platform]
UnwritableFactError             (sql.errors) one fact cannot be written [platform]
SequenceGapError                (sql.errors) a batch does not follow the facts in the tables [platform]
"""

from __future__ import annotations

from typing import ClassVar

from penstock_core.errors import PenstockError


class ArtifactError(PenstockError):
    """A call of an artifact store failed for good."""


class ArtifactMissingError(ArtifactError, LookupError):
    """There is no object with this digest."""

    def __init__(self, sha256: str, where: str) -> None:
        self.sha256 = sha256
        super().__init__(f"artifact {sha256} is not in the store ({where})")


class ArtifactDamagedError(ArtifactError):
    """The bytes of a stored object have another digest.

    Attributes:
        sha256: the digest that the bytes should have.
        found: the digest that they have.
    """

    def __init__(self, sha256: str, found: str, where: str) -> None:
        self.sha256 = sha256
        self.found = found
        super().__init__(
            f"artifact {sha256} is damaged: its bytes in {where} have the SHA-256 {found} instead of {sha256}. "
            "Rerun the step that produced it: the next good copy takes its place"
        )


class ArtifactMismatchError(ArtifactError, ValueError):
    """Bytes to store have another digest or size than announced; nothing was stored."""

    user_fault: ClassVar[bool] = True


class ArtifactTooLargeError(ArtifactError, ValueError):
    """Bytes to store exceed the limit; nothing was stored."""

    user_fault: ClassVar[bool] = True

    def __init__(self, sha256: str, limit: int) -> None:
        self.limit = limit
        super().__init__(f"artifact {sha256} is larger than the limit of {limit} bytes; nothing was stored")


class StoreFullError(ArtifactError):
    """The disk, or a quota on it, is full; no partial object is visible."""


class StoreRefusedError(ArtifactError):
    """The store is misconfigured: URL, bucket, credentials or permissions."""
