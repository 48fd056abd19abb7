"""Wrong values of `PENSTOCK_…` variables: one line that names the variable, for each way to start a platform."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.client.embedded import EmbeddedPlatform
from penstock.errors import PlatformFailedError
from penstock_artifacts.settings import ArtifactsSettings
from penstock_gateway.settings import GatewaySettings
from penstock_servicekit.app import run_service
from penstock_servicekit.settings import ServiceSettings, SettingsError
from penstock_standalone.main import main


def test_an_error_names_each_variable_its_value_and_its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_ACK_WAIT", "6s")
    monkeypatch.setenv("PENSTOCK_PORT", "70000")
    with pytest.raises(SettingsError) as caught:
        GatewaySettings()
    assert str(caught.value) == (
        "PENSTOCK_ACK_WAIT should be a valid number, got '6s' (seconds until unacknowledged messages are redelivered "
        "to another replica); PENSTOCK_PORT should be less than or equal to 65535, got '70000' (port to listen on; 0 "
        "chooses a free one)"
    )


def test_an_error_has_no_value_of_a_secret() -> None:
    with pytest.raises(SettingsError, match="PENSTOCK_S3_SECRET_KEY should be a valid string") as caught:
        ArtifactsSettings(s3_secret_key=12345)
    assert "12345" not in str(caught.value)


def test_a_setting_that_is_no_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_OIDC_ROLES", "admins=admin")
    with pytest.raises(SettingsError, match=r"^PENSTOCK_OIDC_ROLES should be JSON: "):
        GatewaySettings()


def test_long_values_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_REPLICAS", "9" * 500 + "x")
    with pytest.raises(SettingsError) as caught:
        ServiceSettings()
    assert len(str(caught.value)) < 200


def test_log_levels_of_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_LOG_LEVEL", "WARNING")
    assert ServiceSettings().log_level == "warning"
    monkeypatch.setenv("PENSTOCK_LOG_LEVEL", "verbose")
    with pytest.raises(SettingsError, match="PENSTOCK_LOG_LEVEL should be 'debug', 'info', 'warning' or 'error'"):
        ServiceSettings()


def test_a_service_logs_its_wrong_settings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("penstock_servicekit.process_secrets.protect", lambda: None)
    monkeypatch.setenv("PENSTOCK_HEALTH_PORT", "high")
    assert run_service("gateway", ServiceSettings, lambda *_: pytest.fail("built")) == 2
    entry = json.loads(capsys.readouterr().err)
    assert (entry["service"], entry["event"]) == ("gateway", "wrong settings")
    assert entry["error"].startswith("PENSTOCK_HEALTH_PORT should be a valid integer, got 'high'")


def test_each_service_starts_with_it() -> None:
    for file in Path(__file__).parents[3].glob("services/*/penstock_*/__main__.py"):
        assert "run_service(" in file.read_text() or file.parent.name == "penstock_standalone", file


def test_a_platform_prints_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("penstock_servicekit.process_secrets.protect", lambda: None)
    monkeypatch.setenv("PENSTOCK_REPLICAS", "many")
    assert main(["--home", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("penstock: PENSTOCK_REPLICAS should be a valid integer, got 'many'")


@pytest.mark.parametrize(("name", "value"), [("PENSTOCK_IDLE", "1h"), ("PENSTOCK_SLOTS", "many")])
def test_a_command_that_starts_a_platform_shows_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    """PENSTOCK_SLOTS is a setting of a service, which is read after the NATS server has started."""
    monkeypatch.setenv(name, value)
    with EmbeddedPlatform(tmp_path) as platform, pytest.raises(PlatformFailedError) as caught:
        platform.wait(60)
    assert str(caught.value).startswith(f"{name} should be a valid ")
    assert f"got {value!r}" in str(caught.value)


def test_a_service_of_its_own_exits(tmp_path: Path) -> None:
    environment = {"PENSTOCK_NATS_URL": "nats://127.0.0.1:1", "PENSTOCK_LEASE": "1m", "PENSTOCK_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "penstock_executor"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert json.loads(done.stderr)["error"].startswith("PENSTOCK_LEASE should be a valid number, got '1m'")
