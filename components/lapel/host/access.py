"""What callers may do: which APIs there are, and which secrets each store gives out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .routing import Route

__all__ = ["AccessRules", "ApiRule", "SecretScope"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRule:
    """One entry of an API list: `name` is the group, `version` such as `v1`. An empty `protocol` means all."""

    name: str
    version: str
    protocol: Literal["", "http", "grpc"] = ""

    def covers(self, route: Route) -> bool:
        """Tell whether the entry is about this route."""
        return self.protocol != "grpc" and (self.name, self.version) == (route.group, route.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretScope:
    """Which secrets of one store may be read. `allowed`, when not empty, is all there is; else `denied` counts."""

    default_access: Literal["allow", "deny"] = "allow"
    allowed: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()

    def allows(self, secret: str) -> bool:
        """Tell whether this secret may be read."""
        if self.allowed:
            return secret in self.allowed
        return secret not in self.denied and self.default_access == "allow"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRules:
    """All rules; the default allows everything. `secrets` are scopes by name of the store."""

    allowed_apis: tuple[ApiRule, ...] = ()
    denied_apis: tuple[ApiRule, ...] = ()
    secrets: Mapping[str, SecretScope] = field(default_factory=dict)

    def serves(self, route: Route) -> bool:
        """Tell whether the route exists. Denials come first; the health routes always exist."""
        if route.group == "healthz":
            return True
        if any(rule.covers(route) for rule in self.denied_apis):
            return False
        http = [rule for rule in self.allowed_apis if rule.protocol != "grpc"]
        return not http or any(rule.covers(route) for rule in http)

    def allows_secret(self, store: str, secret: str) -> bool:
        """Tell whether a secret may be read from a store."""
        scope = self.secrets.get(store)
        return scope is None or scope.allows(secret)
