"""The accounts of a NATS system of Penstock, as a part of the configuration of its servers.

Accounts keep their subjects apart; only what one imports from another crosses:

    PENSTOCK    the services: JetStream and all subjects of the platform
    STEPS       runners in pods: they send requests to executors, and answer the offers of executors
    PUBLISHERS  other systems that send events: they reach the intake of events, not the stream
    CALLOUT     the gateways, which answer servers about the credentials of STEPS and PUBLISHERS
    SYS         the system account: the gateways close connections by it

Users of PENSTOCK and CALLOUT are in the configuration. All others are admitted by a gateway (auth callout).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PLATFORM, STEPS, PUBLISHERS, CALLOUT, SYSTEM = "PENSTOCK", "STEPS", "PUBLISHERS", "CALLOUT", "SYS"

AUTHORIZATION_TIMEOUT = 1.5
"""Seconds until a gateway must have answered a server. nats-py takes a longer wait for a success."""

MAX_CONNECTIONS = 20_000
MAX_SUBSCRIPTIONS = 20
"""Of one connection of a runner or publisher."""


@dataclass(frozen=True, slots=True)
class Login:
    """A user in the configuration of the servers: an nkey, or a name with a password.

    Attributes:
        name: the public key of the nkey, or the name.
        password: empty for an nkey.
    """

    name: str
    password: str = ""

    @property
    def quoted(self) -> str:
        """The name as a value of the configuration. That of an nkey has no quotes: it may be a variable."""
        return f'"{self.name}"' if self.password else self.name

    def __str__(self) -> str:
        return f'{{user: "{self.name}", password: "{self.password}"}}' if self.password else f"{{nkey: {self.name}}}"


def server_config(services: Sequence[Login], callout: Login, issuer: str) -> str:
    """Return the accounts and the authorization of the servers, in the syntax of their configuration.

    Args:
        services: the users of the services.
        callout: the user of the gateways in the account CALLOUT.
        issuer: public key of the account key that signs the answers of the gateways.
    """
    users = "\n      ".join(map(str, services))
    # A user that is missing here would be sent to the callout, a password included.
    known = ", ".join(one.quoted for one in (*services, callout))
    return f"""\
system_account: {SYSTEM}
accounts {{
  {SYSTEM} {{
    exports: [
      {{service: "$SYS.REQ.SERVER.*.KICK", accounts: [{CALLOUT}]}}
      {{service: "$SYS.REQ.SERVER.PING.CONNZ", response_type: stream, accounts: [{CALLOUT}]}}
    ]
  }}
  {CALLOUT} {{
    users: [{callout}]
    imports: [
      {{service: {{account: {SYSTEM}, subject: "$SYS.REQ.SERVER.*.KICK"}}}}
      {{service: {{account: {SYSTEM}, subject: "$SYS.REQ.SERVER.PING.CONNZ"}}}}
    ]
  }}
  {PLATFORM} {{
    jetstream: enabled
    users: [
      {users}
    ]
    exports: [
      {{service: "pods.>", accounts: [{STEPS}]}}
      {{service: "published.>", accounts: [{PUBLISHERS}]}}
    ]
    imports: [
      {{service: {{account: {STEPS}, subject: "offers.>"}}}}
    ]
  }}
  {STEPS} {{
    limits {{ max_connections: {MAX_CONNECTIONS}, max_subscriptions: {MAX_SUBSCRIPTIONS} }}
    exports: [
      {{service: "offers.>", accounts: [{PLATFORM}]}}
    ]
    imports: [
      {{service: {{account: {PLATFORM}, subject: "pods.>"}}}}
    ]
  }}
  {PUBLISHERS} {{
    limits {{ max_connections: {MAX_CONNECTIONS}, max_subscriptions: {MAX_SUBSCRIPTIONS}, max_payload: 1MB }}
    imports: [
      {{service: {{account: {PLATFORM}, subject: "published.>"}}, to: "events.>"}}
    ]
  }}
}}
authorization {{
  timeout: {AUTHORIZATION_TIMEOUT}
  auth_callout {{ issuer: {issuer}, account: {CALLOUT}, auth_users: [{known}] }}
}}
"""
