"""Artifacts on an S3 service, through boto3. Importing this package does not import boto3: that costs start-up time."""

from penstock_adapters.s3.client import S3Options
from penstock_adapters.s3.store import S3Artifacts

__all__ = ["S3Artifacts", "S3Options"]
