"""An index of deployments by the types of events that their triggers take: finds candidates without looking at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from penstock_core.deployments.definition import Subscription, subscription
from penstock_core.deployments.events import Event
from penstock_core.deployments.state import Deployment, Snapshot

Name = tuple[str, str]
"""Project and name of a deployment."""

_Key = tuple[str, str, str]


class TriggerIndex:
    """The deployments of all projects, by what their triggers take. `update` is to be called after every change."""

    def __init__(self) -> None:
        self._deployments: dict[Name, Deployment] = {}
        self._keys: dict[Name, set[_Key]] = {}
        self._by_key: defaultdict[_Key, set[Name]] = defaultdict(set)
        self._subscriptions: dict[tuple[Name, int], tuple[Subscription, ...]] = {}

    def update(self, deployment: Deployment) -> None:
        """Take the state of a deployment."""
        name = (deployment.project, deployment.name)
        self._deployments[name] = deployment
        if not deployment.snapshots:  # its log is lost: another one will have the same revisions
            self._subscriptions = {key: shapes for key, shapes in self._subscriptions.items() if key[0] != name}
        for key in self._keys.pop(name, ()):
            self._by_key[key].discard(name)
            if not self._by_key[key]:
                del self._by_key[key]
        # Events that are handled late meet the revision of their time, so all revisions are found.
        shapes = {shape for snapshot in deployment.snapshots[-_REVISIONS:] for shape in self._keys_of(name, snapshot)}
        self._keys[name] = shapes
        for key in shapes:
            self._by_key[key].add(name)

    def candidates(self, event: Event) -> Iterator[tuple[Deployment, Snapshot, Subscription]]:
        """The triggers in force when the event arrived that take its type, in the order of their deployments."""
        names: set[Name] = set()
        for type in _patterns(event.type):
            for subject in {"", event.own_trigger}:
                names |= self._by_key.get((event.project, type, subject), set())
        for name in sorted(names):
            deployment = self._deployments[name]
            snapshot = deployment.at(event.received_at)
            if snapshot is None:
                continue
            for shape in self.subscriptions(deployment, snapshot):
                if shape.takes(event):
                    yield deployment, snapshot, shape

    def subscriptions(self, deployment: Deployment, snapshot: Snapshot) -> tuple[Subscription, ...]:
        """The subscriptions of a revision; none if the deployment was deleted then."""
        key = ((deployment.project, deployment.name), snapshot.revision)
        found = self._subscriptions.get(key)
        if found is None:
            triggers = snapshot.definition.triggers if snapshot.definition else ()
            found = tuple(subscription(deployment.name, trigger) for trigger in triggers)
            self._subscriptions[key] = found
        return found

    def _keys_of(self, name: Name, snapshot: Snapshot) -> Iterator[_Key]:
        for shape in self.subscriptions(self._deployments[name], snapshot):
            for type in shape.types:
                yield name[0], type, shape.subject


_REVISIONS = 20
"""Number of latest revisions of a deployment that are indexed: a delayed event meets an earlier revision."""


def _patterns(type: str) -> Iterator[str]:
    """The type, and the prefixes that match it: `com.acme.*`, `com.*`."""
    yield type
    words = type.split(".")
    for n in range(1, len(words)):
        yield ".".join(words[:n]) + ".*"
