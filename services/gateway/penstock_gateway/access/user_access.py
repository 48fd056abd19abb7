"""What the settings say about users: the OpenID Connect provider, and how users log in there."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_contracts.access import LoginView
from penstock_core.access import Revocations
from penstock_core.errors import PenstockError
from penstock_gateway.access.oidc_users import OidcRules, OidcUsers, parse_roles
from penstock_gateway.settings import GatewaySettings


class IncompleteOidcSettingsError(PenstockError):
    """An OpenID Connect provider is configured without an audience."""


@dataclass(frozen=True, slots=True)
class UserAccess:
    """The users of a platform.

    Attributes:
        oidc: resolves their tokens; None without a provider.
        login: how they get tokens; None if `penstock login` is not configured.
        revocations: of tokens and users.
    """

    oidc: OidcUsers | None
    login: LoginView | None
    revocations: Revocations


def configure(settings: GatewaySettings, revocations: Revocations) -> UserAccess:
    """Return the users by the settings.

    Raises:
        OidcConfigurationError: the URL of the provider is not secure.
        InvalidRolesError: the roles of groups are invalid.
        IncompleteOidcSettingsError: neither an audience nor a client is configured.
    """
    issuer, client, audience = settings.oidc_issuer.strip(), settings.oidc_client_id, settings.oidc_audience
    roles = parse_roles(settings.oidc_roles)
    if not issuer:
        return UserAccess(None, None, revocations)
    if not (audience or client):
        raise IncompleteOidcSettingsError(
            "PENSTOCK_OIDC_ISSUER needs PENSTOCK_OIDC_CLIENT_ID or PENSTOCK_OIDC_AUDIENCE"
        )
    # Its libraries take long to import.
    from penstock_adapters.oidc import OidcVerifier

    rules = OidcRules(settings.oidc_username_claim, settings.oidc_groups_claim, roles)
    users = OidcUsers(OidcVerifier(issuer, audience or client), rules, revocations)
    login = None
    if client:
        kind = "access_token" if audience and audience != client else "id_token"
        login = LoginView(
            issuer=issuer,
            client_id=client,
            scope=settings.oidc_scopes,
            token=kind,
            audience=audience if kind == "access_token" else "",
        )
    return UserAccess(users, login, revocations)
