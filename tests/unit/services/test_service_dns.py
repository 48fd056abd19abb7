"""The DNS of services for test clusters."""

from __future__ import annotations

import struct

import pytest

pytest.importorskip("kubernetes")

from penstock_testkit.servers import service_dns


def query(name: str, kind: int = 1) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)


def test_answers() -> None:
    known = {"nats.ml": ["10.0.0.1"], "nats-0.nodes.ml": ["10.0.0.2"]}
    found = service_dns.answer(query("NATS.ml.svc.cluster.local"), known)
    assert found[:2] == struct.pack(">H", 7) and found[3] & 15 == 0 and found.endswith(bytes([10, 0, 0, 1]))
    assert service_dns.answer(query("nats-0.nodes.ml.svc.cluster.local"), known).endswith(bytes([10, 0, 0, 2]))
    # IPv6: the name exists, without an address.
    empty = service_dns.answer(query("nats.ml.svc.cluster.local", 28), known)
    assert empty[3] & 15 == 0 and empty[6:8] == b"\0\0"
    for name in ("other.ml.svc.cluster.local", "nats.ml", "example.org"):
        assert service_dns.answer(query(name), known)[3] & 15 == 3
