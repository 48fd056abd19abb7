"""What the call of an endpoint needs, as one feature: to inject five takes longer than the call itself."""

from __future__ import annotations

from penstock_core.frozen import frozen
from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.endpoints.endpoints_service import Endpoints
from penstock_gateway.endpoints.outputs import Outputs
from penstock_gateway.endpoints.warm_calls import WarmCalls


@frozen(kw_only=True)
class CallFeatures:
    """See the module. `max_form` is the largest form in bytes."""

    endpoints: Endpoints
    warm: WarmCalls
    outputs: Outputs
    artifacts: Artifacts
    max_form: int
