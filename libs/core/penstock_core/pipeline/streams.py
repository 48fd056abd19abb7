"""Which pipelines answer with a stream of items."""

from __future__ import annotations

from penstock_core.pipeline.ir import Pipeline
from penstock_core.pipeline.values import Output


def streamed_node(pipeline: Pipeline) -> str | None:
    """Return the key of the node whose items are the output of a pipeline; None if its output is no stream."""
    match [*pipeline.outputs.items()]:
        case [("result", Output(node, "result"))]:
            found = next((one for one in pipeline.nodes if one.key == node), None)
            streams = found is not None and found.mapped is None and pipeline.steps[found.step].stream
            return node if streams else None
        case _:
            return None
