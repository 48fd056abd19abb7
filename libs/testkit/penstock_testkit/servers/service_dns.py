"""DNS of the services of a test cluster that has none: `python -m penstock_testkit.servers.service_dns ADDRESS`.

It answers for `NAME.NAMESPACE.svc.cluster.local`, and for the pods of headless services, from what the cluster of
`KUBECONFIG` has now. Pods use it by `dnsPolicy: None` and `dnsConfig`.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import kubernetes.client
import kubernetes.config

_SUFFIX = ".svc.cluster.local"
_HEADLESS = "service.kubernetes.io/headless"
_SERVICE = "kubernetes.io/service-name"
_FRESH = 0.5
"""Seconds for which the addresses of the cluster are reused."""

_ADDRESS = 1
_ANSWER, _UNKNOWN = 0x8580, 0x8583


def addresses(services: list[Any], slices: list[Any]) -> dict[str, list[str]]:
    """Return the addresses by `NAME.NAMESPACE`, and by `POD.NAME.NAMESPACE`."""
    found: dict[str, list[str]] = {}
    for service in services:
        if service.spec.cluster_ip not in (None, "", "None"):
            found[f"{service.metadata.name}.{service.metadata.namespace}"] = [service.spec.cluster_ip]
    for part in slices:
        labels = part.metadata.labels or {}
        name = f"{labels.get(_SERVICE)}.{part.metadata.namespace}"
        for endpoint in part.endpoints or []:
            if endpoint.hostname:
                found.setdefault(f"{endpoint.hostname}.{name}", []).extend(endpoint.addresses)
            if _HEADLESS in labels:
                found.setdefault(name, []).extend(endpoint.addresses)
    return found


def answer(query: bytes, known: dict[str, list[str]]) -> bytes:
    """Return the answer to a DNS query. Raises IndexError and struct.error for what is none."""
    end, labels = 12, list[str]()
    while length := query[end]:
        labels.append(query[end + 1 : end + 1 + length].decode("ascii", "replace").lower())
        end += length + 1
    kind, _ = struct.unpack(">HH", query[end + 1 : end + 5])
    name = ".".join(labels)
    found = known.get(name.removesuffix(_SUFFIX), []) if name.endswith(_SUFFIX) else []
    sent = found if kind == _ADDRESS else []
    head = query[:2] + struct.pack(">HHHHH", _ANSWER if found else _UNKNOWN, 1, len(sent), 0, 0)
    records = b"".join(struct.pack(">HHHIH", 0xC00C, 1, 1, 1, 4) + socket.inet_aton(one) for one in sent)
    return head + query[12 : end + 5] + records


def serve(address: str, read: Callable[[], dict[str, list[str]]]) -> None:
    """Answer queries on port 53 of an address until the process ends."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))
    known, at = dict[str, list[str]](), -_FRESH
    while True:
        query, client = server.recvfrom(4096)
        if time.monotonic() - at > _FRESH:
            known, at = read(), time.monotonic()
        try:
            server.sendto(answer(query, known), client)
        except (IndexError, struct.error):
            continue


def main() -> None:
    """Serve for the cluster of `KUBECONFIG`."""
    kubernetes.config.load_kube_config()
    core: Any = kubernetes.client.CoreV1Api()
    discovery: Any = kubernetes.client.DiscoveryV1Api()

    def read() -> dict[str, list[str]]:
        services = core.list_service_for_all_namespaces(_request_timeout=10).items
        slices = discovery.list_endpoint_slice_for_all_namespaces(_request_timeout=10).items
        return addresses(services, slices)

    serve(sys.argv[1], read)


if __name__ == "__main__":
    main()
