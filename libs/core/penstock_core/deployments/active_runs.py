"""The limit of active runs of a deployment."""

from __future__ import annotations

from penstock_core.frozen import frozen
from penstock_core.pipeline.ir import Overlap


@frozen(kw_only=True)
class DeploymentLimit:
    """How many runs of a deployment may be active at the same time, and what happens to further ones."""

    deployment: str
    most: int
    overlap: Overlap = Overlap.QUEUE
