"""Writes the variables of docker-compose.yml with random secrets: `python deploy/compose/env.py > .env`."""

import secrets
import sys

NAMES = ("PENSTOCK_TOKEN", "NATS_TOKEN", "POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY")

if __name__ == "__main__":
    # nats-server reads a value that begins with a digit as a number.
    sys.stdout.writelines(f"{name}=s{secrets.token_hex(24)}\n" for name in NAMES)
