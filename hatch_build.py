"""Takes the dependencies of a distribution from the dependency groups of the root `pyproject.toml`.

Each distribution names its groups in `[tool.hatch.metadata.hooks.custom]`: `dependencies` and `extras` are groups,
`same-version` are other distributions of Penstock.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Dependencies(MetadataHookInterface):
    """Fills in the dependencies, which every distribution declares as dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set `dependencies` and `optional-dependencies`; hatchling has set `version` before."""
        groups = tomllib.loads(Path(__file__).with_name("pyproject.toml").read_text())["dependency-groups"]
        metadata["dependencies"] = [
            *(f"{name}=={metadata['version']}" for name in self.config.get("same-version", [])),
            *(requirement for name in self.config["dependencies"] for requirement in groups[name]),
        ]
        metadata["optional-dependencies"] = {name: groups[name] for name in self.config["extras"]}
