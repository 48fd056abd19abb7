"""boto3's client for one bucket: calls in a bounded pool of threads, errors translated into Penstock's.

boto3 is imported when the first call is made, because its import costs more than the rest of a service's start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NoReturn, ParamSpec, TypeVar

from penstock_adapters import memory, threads
from penstock_adapters.errors import StoreRefusedError
from penstock_core.errors import UnavailableError

THREADS = 8
CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 60.0
TRIES = 4

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """Location and credentials of a bucket.

    Attributes:
        bucket: its name; it must exist.
        prefix: put before every key, without slashes at its ends.
        endpoint: URL of a service other than AWS, such as `http://minio:9000`.
        region: region name; by default the one that boto3 finds, `us-east-1` with an endpoint of one's own.
        access_key: with `secret_key`, the credentials; by default boto3 looks for them (instance role, web identity).
        secret_key: see `access_key`.
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: str | None = None

    @property
    def where(self) -> str:
        """Name of the store in messages."""
        at = f" at {self.endpoint}" if self.endpoint else ""
        return f"s3://{'/'.join(filter(None, (self.bucket, self.prefix)))}{at}"


class S3ResponseError(StoreRefusedError):
    """The service answered with an error. `code` is S3's (a bare number for HEAD), `status` the HTTP status."""

    def __init__(self, message: str, code: str, status: int) -> None:
        self.code = code
        self.status = status
        super().__init__(message)

    @property
    def missing(self) -> bool:
        """Whether there is no such object."""
        return self.code in ("NoSuchKey", "404", "NotFound")

    @property
    def exists(self) -> bool:
        """Whether a conditional write was refused because the object exists, or is being written."""
        return self.status in (409, 412)


class S3Client:
    """Calls of one bucket. `run` is for functions that make several; both translate errors."""

    def __init__(self, options: S3Options) -> None:
        self.options = options
        memory.return_free_memory()
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="penstock-s3")
        self._lock = threading.Lock()
        self._client: Any = None

    async def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Call an operation such as `head_object` on the bucket.

        Raises:
            UnavailableError: the service is unavailable.
            S3ResponseError: it answered with an error.
            StoreRefusedError: there are no usable credentials, or the settings are invalid.
        """
        return await self.run(self.blocking, operation, **arguments)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a blocking function in the pool."""
        try:
            return await threads.run(self.pool, function, *args, **kwargs)
        except Exception as error:
            self._translate(error)

    def blocking(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """The same as `call`, from within a thread, without the translation of errors."""
        return getattr(self._connected(), operation)(Bucket=self.options.bucket, **arguments)

    def presign(self, operation: str, expires: float, **arguments: Any) -> str:
        """A URL that allows one operation for a time. Needs no answer from the service."""
        try:
            return self._connected().generate_presigned_url(
                operation, Params={"Bucket": self.options.bucket, **arguments}, ExpiresIn=max(1, int(expires))
            )
        except Exception as error:
            self._translate(error)

    async def close(self) -> None:
        """Close connections and threads."""
        if self._client is not None:
            self._client.close()
        self.pool.shutdown(wait=False, cancel_futures=True)

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = _connect(self.options)
            return self._client

    def _translate(self, error: Exception) -> NoReturn:
        from botocore import exceptions  # loaded with boto3 by the call that failed

        where = self.options.where
        if isinstance(error, exceptions.ClientError):
            raise self._of_answer(error.response) from error
        if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
            raise StoreRefusedError(
                f"there are no credentials for the artifact store {where}: set PENSTOCK_S3_ACCESS_KEY and "
                "PENSTOCK_S3_SECRET_KEY, or give the machine a role"
            ) from error
        if isinstance(error, interrupted()):
            raise UnavailableError(
                f"the artifact store {where} cannot be reached ({error}): check that it runs and that "
                "PENSTOCK_S3_ENDPOINT is right; the call can be retried"
            ) from error
        if isinstance(error, exceptions.BotoCoreError | ValueError):
            raise StoreRefusedError(f"the settings of the artifact store {where} are invalid: {error}") from error
        raise error

    def _of_answer(self, response: dict[str, Any]) -> Exception:
        code = str(response.get("Error", {}).get("Code", ""))
        text = str(response.get("Error", {}).get("Message", ""))
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        where = self.options.where
        if (status >= 500 and status != 501) or status == 429 or code in ("RequestTimeout", "SlowDown"):
            return UnavailableError(f"the artifact store {where} is unavailable ({status} {code}): try again")
        if code == "NoSuchBucket":
            what = f"bucket {self.options.bucket!r} does not exist: create it, or correct PENSTOCK_ARTIFACTS_URL"
        elif status in (400, 401, 403) and code in _CREDENTIALS:
            what = f"its credentials are not accepted ({code}): check PENSTOCK_S3_ACCESS_KEY and PENSTOCK_S3_SECRET_KEY"
        elif status == 403:
            what = (
                f"access is denied ({code}): the credentials need s3:GetObject, s3:PutObject, s3:DeleteObject and "
                "s3:ListBucket on it"
            )
        else:
            what = f"the service refused the call: {status} {code} {text}".rstrip()
        return S3ResponseError(f"the artifact store {where} cannot be used: {what}", code, status)


def interrupted() -> tuple[type[Exception], ...]:
    """Errors of a connection that could not be made or broke off."""
    from botocore import exceptions  # loaded with boto3

    return (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.IncompleteReadError,
        exceptions.ResponseStreamingError,
    )


_CREDENTIALS = frozenset(
    ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AuthorizationHeaderMalformed")
)


def _connect(options: S3Options) -> Any:
    from boto3.session import Session  # see the module
    from botocore.config import Config

    config = Config(
        signature_version="s3v4",
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": TRIES},
        max_pool_connections=THREADS + 2,
        tcp_keepalive=True,
        # Services other than AWS reject the checksums that newer boto3 adds by default.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        # A service with an address of its own rarely has one for each bucket.
        s3={"addressing_style": "path" if options.endpoint else "auto"},
    )
    return Session().client(
        "s3",
        endpoint_url=options.endpoint,
        region_name=options.region or ("us-east-1" if options.endpoint else None),
        aws_access_key_id=options.access_key,
        aws_secret_access_key=options.secret_key,
        config=config,
    )
