"""Secrets leave the environment of a service, and its settings find them all the same."""

from __future__ import annotations

import os
import subprocess
import sys

import pydantic
import pytest

from penstock_artifacts.settings import ArtifactsSettings
from penstock_builder.settings import BuilderSettings
from penstock_cron.settings import CronSettings
from penstock_executor.settings import ExecutorSettings
from penstock_gateway.settings import GatewaySettings
from penstock_scheduler.settings import SchedulerSettings
from penstock_servicekit import process_secrets
from penstock_servicekit.settings import ServiceSettings
from penstock_triggers.settings import TriggersSettings

SETTINGS = [
    ArtifactsSettings,
    BuilderSettings,
    CronSettings,
    ExecutorSettings,
    GatewaySettings,
    SchedulerSettings,
    TriggersSettings,
]
PROGRAM = """
import os, subprocess, sys
from pathlib import Path
from penstock_artifacts.settings import ArtifactsSettings
from penstock_servicekit import process_secrets

process_secrets.protect()
process_secrets.protect()
assert "hunter2" not in Path("/proc/self/environ").read_text()
assert "PENSTOCK_S3_SECRET_KEY" not in os.environ
assert os.environ["AWS_SECRET_ACCESS_KEY"] == "hunter2"
assert "hunter2" not in subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
settings = ArtifactsSettings(s3_access_key="given")
print(settings.s3_secret_key.get_secret_value(), settings.s3_access_key.get_secret_value(), settings.log_level)
print(oct(os.stat(f"/proc/{os.getpid()}/environ").st_uid))
"""


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.__name__)
def test_every_secret_setting_is_taken_out_of_the_environment(settings: type[ServiceSettings]) -> None:
    for name, field in settings.model_fields.items():
        if "SecretStr" in str(field.annotation):
            assert process_secrets.SECRET.fullmatch(f"PENSTOCK_{name.upper()}"), name
    assert issubclass(settings, pydantic.BaseModel)


def test_a_protected_process_shows_no_secret_and_its_settings_have_it() -> None:
    env = {
        **os.environ,
        "PENSTOCK_S3_SECRET_KEY": "hunter2",
        "PENSTOCK_S3_ACCESS_KEY": "other",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "PENSTOCK_LOG_LEVEL": "debug",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["hunter2", "given", "debug", "0o0"]
