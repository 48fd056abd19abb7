"""Invariants of the values in the log of a run: inputs and outputs are results of the successful attempts."""

from __future__ import annotations

from penstock_core.facts import AttemptRequested, Outcome
from penstock_core.pipeline import values
from penstock_testkit.checks.log_index import InvariantError, Log, index_of, node_of
from penstock_testkit.checks.plain_data import MISSING, length, part, unreadable


def inputs_match_results(log: Log) -> None:
    """A request has the results its bindings refer to, within the size limit of a request."""
    for fact in log.facts:
        if not isinstance(fact, AttemptRequested) or unreadable(fact):
            continue
        node = log.nodes[node_of(log.nodes, fact.key)]
        indexes = _element_indexes(log, node.key, fact.key)
        for name, binding in node.inputs.items():
            if isinstance(binding, values.Ending):
                continue
            wanted = log.expected(binding)
            if name in indexes:
                wanted = part(wanted, (indexes[name],))
            # A missing element of a value passed by reference is reported by the reader of the value.
            required = wanted is not MISSING or isinstance(fact.inputs[name], values.Element)
            if (found := log.followed(fact.inputs[name])) != wanted or not required:
                raise InvariantError(f"input {name} of {fact.tail} is {str(found)[:200]}, not {str(wanted)[:200]}")
        if (size := sum(values.weight(value) for value in fact.inputs.values())) > values.REQUEST_LIMIT + 4096:
            raise InvariantError(f"the inputs of {fact.tail} weigh {size}")


def _element_indexes(log: Log, node: str, key: str) -> dict[str, int]:
    """Return which element of which list an item gets."""
    mapped = log.nodes[node].mapped
    if mapped is None:
        return {}
    index = index_of(key)
    if mapped.mode == "zip":
        return dict.fromkeys(mapped.over, index)
    indexes: dict[str, int] = {}
    for name in reversed(mapped.over):
        count = _length(log.expected(log.nodes[node].inputs[name]))
        index, indexes[name] = divmod(index, count)
    return indexes


def _length(value: object) -> int:
    return length(value) or 0


def counts_match_lists(log: Log) -> None:
    """A mapped step has as many items as its lists have elements."""
    for key, (_, fact) in log.expanded.items():
        mapped = log.nodes[key].mapped
        if mapped is None or fact.error is not None:
            continue
        lengths = [_length(log.expected(log.nodes[key].inputs[name])) for name in mapped.over]
        product = 1
        for one in lengths:
            product *= one
        if fact.count != (product if mapped.mode == "grid" else lengths[0]):
            raise InvariantError(f"step {key} has {fact.count} items of lists of {lengths}")


def outputs_match_results(log: Log) -> None:
    """The outputs of a succeeded run are the results of its successful attempts."""
    for _, end in log.finished:
        if end.outcome is not Outcome.SUCCEEDED:
            continue
        found = {name: log.followed(value) for name, value in end.outputs.items()}
        if found != {name: log.expected(binding) for name, binding in log.pipeline.outputs.items()}:
            raise InvariantError(f"the run's outputs are {str(found)[:300]}")
        if (size := sum(values.weight(value) for value in end.outputs.values())) > values.REQUEST_LIMIT + 4096:
            raise InvariantError(f"the outputs of the run weigh {size}")
