"""Settings of the executor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from penstock_servicekit.secret_sources import SecretSettings


def _default_slots() -> int:
    return max(4, os.cpu_count() or 1)


class ExecutorSettings(SecretSettings):
    """Settings of the executor."""

    pool: str = Field(default="default", description="pool whose attempts this executor runs")
    slots: int = Field(default_factory=_default_slots, ge=1, le=1000, description="attempts that run at the same time")
    look_ahead: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="attempts that wait here for a slot, by priority; leave it at 0 with several executors per pool",
    )
    gpus: int | None = Field(
        default=None, ge=0, le=1024, description="devices that steps can use; by default the visible NVIDIA devices"
    )
    grace: float = Field(default=5.0, ge=0, description="seconds between SIGTERM and SIGKILL")
    drain: float = Field(default=5.0, ge=0, description="seconds that running attempts may take to finish at a stop")
    safe_projects: str = Field(
        default="",
        description="projects whose steps may not use formats whose loading can run code, such as pickle, separated by "
        "commas; * for all",
    )
    pythons: str = Field(
        default="",
        description="interpreters, or folders of virtual environments, that may run steps, in addition to the "
        "executor's own and those that pipelines were registered with; separated by colons",
    )
    step_user: str = Field(
        default="",
        description="user that steps run as, by name or number, if the executor runs as root; by default its own",
    )
    step_env: str = Field(
        default="",
        description="environment variables that steps may be passed by `env_from`, separated by commas; * for all. "
        "`penstock up` and embedded platforms pass all by default",
    )
    lease: float = Field(
        default=30.0,
        gt=1,
        description="seconds without contact to NATS after which the processes of attempts with slots of limits are "
        "killed, and after which other executors take over",
    )
    executor: Literal["process", "argo"] = Field(
        default="process", description="how attempts run: in processes of this machine, or as Argo Workflows in pods"
    )
    argo_config: Path | None = Field(
        default=None, description="YAML file that describes the pods of this pool, see docs/kubernetes.md"
    )
    environment_timeout: float = Field(
        default=1800.0, gt=0, description="seconds until the installation of a declared environment is given up"
    )
    fork_servers: int = Field(default=4, ge=1, description="idle fork servers to keep")

    def interpreters(self) -> list[str]:
        """The paths in `pythons`, with `bin/python` for a folder."""
        paths = [Path(text).expanduser() for text in self.pythons.split(os.pathsep) if text]
        return [str(path / "bin" / "python" if path.is_dir() else path) for path in paths]

    def passed_variables(self, name: str) -> bool:
        """Whether a variable of the executor may be passed to steps."""
        names = {one.strip() for one in self.step_env.split(",")}
        return name in names or "*" in names

    def unsafe_allowed(self, project: str) -> bool:
        """Whether a project's steps may save and load formats whose loading can run code."""
        safe = {name.strip() for name in self.safe_projects.split(",")}
        return "*" not in safe and project not in safe
