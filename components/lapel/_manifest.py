"""What one component document says, and how references in it become values."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple

from ._fields import suggestion, to_text
from ._reader import UNRESOLVED, Property
from .descriptor import Kind
from .errors import InvalidArgumentError, ManifestError, Problem
from .secret import Secret

__all__ = [
    "DEFAULT_INIT_TIMEOUT",
    "Document",
    "Manifest",
    "MetadataItem",
    "Resolution",
    "SecretRef",
    "expand_tags",
    "name_problem",
    "resolve_env",
    "split_type",
]

DEFAULT_INIT_TIMEOUT = timedelta(seconds=5)
_FOREIGN_KINDS = ("middleware", "conversation", "nameresolution", "workflowbackend")
_TAG = re.compile(r"\{(uuid|podName|namespace|appID)\}")


class SecretRef(NamedTuple):
    """Where a secret value stands: the secret's name in its store, and the key of the value inside the secret."""

    name: str
    key: str


@dataclass(frozen=True, slots=True)
class MetadataItem:
    """One entry of `spec.metadata`, as it was written. The value is not part of the repr.

    `value` is None when the entry has none. `env_ref` names an environment variable. Which of the three counts is
    decided by `Manifest.resolve`.
    """

    name: str
    value: str | Secret | None = field(default=None, repr=False)
    secret_ref: SecretRef | None = None
    env_ref: str | None = None
    line: int | None = None

    @property
    def uses_secret(self) -> bool:
        """The secret reference counts: next to a value it replaces it, and `envRef` without a value comes first."""
        return self.secret_ref is not None and (bool(self.value) or self.env_ref is None)


class Resolution(NamedTuple):
    """The properties of a component with their values, and what was wrong with references."""

    properties: list[Property]
    problems: list[Problem]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One component document.

    `type` is in lower case (`state.sqlite`), `driver` the part after the kind, `version` in lower case with `v1` for
    none, `v0` and `v1`. `init_timeout` bounds opening, 5 s unless given. `secret_store` names the component that
    holds the secrets of this one; None when the document names none. `scopes` are the app ids that may load it; empty
    means all. `namespace` is None unless the document has one. `file` and `line` are None for a manifest made in code.
    """

    name: str
    kind: Kind
    driver: str
    version: str = "v1"
    metadata: tuple[MetadataItem, ...] = ()
    init_timeout: timedelta = DEFAULT_INIT_TIMEOUT
    ignore_errors: bool = False
    secret_store: str | None = None
    scopes: tuple[str, ...] = ()
    namespace: str | None = None
    file: str | None = None
    line: int | None = None

    @property
    def type(self) -> str:
        """The type in lower case, for example `state.sqlite`."""
        return f"{self.kind.value}.{self.driver}"

    @classmethod
    def of(
        cls,
        name: str,
        type: str,
        metadata: Mapping[str, Any] | None = None,
        *,
        version: str = "v1",
        init_timeout: timedelta = DEFAULT_INIT_TIMEOUT,
        ignore_errors: bool = False,
        secret_store: str | None = None,
        scopes: Iterable[str] = (),
        namespace: str | None = None,
    ) -> Manifest:
        """Make a manifest in code.

        Values of `metadata` are text, `Secret`, `SecretRef`, or numbers, truth values and durations, which become
        text. Raises `ManifestError` when the name or the type cannot be.
        """
        kind, driver, problem = split_type(type)
        problem = name_problem(name) or problem
        if kind is None or problem:
            raise ManifestError(problem, problems=[Problem(problem, component=name)], component=name)
        return cls(
            name=name,
            kind=kind,
            driver=driver,
            version=normal_version(version),
            metadata=tuple(_item(key, value) for key, value in (metadata or {}).items()),
            init_timeout=init_timeout,
            ignore_errors=ignore_errors,
            secret_store=secret_store,
            scopes=tuple(scopes),
            namespace=namespace,
        )

    def in_scope(self, app_id: str | None, namespace: str | None = None) -> bool:
        """Tell whether this app may load the component. None for an argument leaves its rule out."""
        if namespace and self.namespace and namespace != self.namespace:
            return False
        return app_id is None or not self.scopes or app_id in self.scopes

    def secret_refs(self) -> tuple[SecretRef, ...]:
        """Return the references whose values `resolve` needs, each once, in the order of the file."""
        return tuple(dict.fromkeys(item.secret_ref for item in self.metadata if item.secret_ref and item.uses_secret))

    def resolve(
        self,
        secrets: Mapping[SecretRef, str | Secret] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        app_id: str | None = None,
        namespace: str | None = None,
        pod_name: str | None = None,
    ) -> Resolution:
        """Turn the entries into properties for `Settings.parse` or, before secrets are there, `Settings.examine`.

        A secret that is found and not empty replaces the value next to it; a missing one leaves the value, and
        without a value it is a problem. With `secrets` None every entry that needs one is `UNRESOLVED`. An
        environment variable is read only where there is no value; a denied name is an error, a variable that is not
        set a warning. What comes from either is a `Secret`. Template tags are replaced in written values only. None
        for `environ` means the environment of the process, None for `pod_name` its `POD_NAME`.
        """
        environ = os.environ if environ is None else environ
        pod_name = environ.get("POD_NAME") if pod_name is None else pod_name
        properties: list[Property] = []
        problems: list[Problem] = []
        for item in self.metadata:
            value: object = item.value
            message, warning = "", False
            if item.uses_secret and secrets is None:
                value = UNRESOLVED
            elif item.uses_secret and secrets and item.secret_ref and (found := _plain(secrets.get(item.secret_ref))):
                value = Secret(found)
            elif item.uses_secret and not item.value and item.secret_ref:
                name, key = item.secret_ref
                message = f"needs the secret {name!r} with key {key!r}, which the secret store does not have"
            elif item.env_ref is not None and not item.value:
                value, message, warning = _from_environment(item.env_ref, environ)
            elif isinstance(value, str):
                value, message = _expanded(value, app_id, namespace, pod_name)
            if message:
                problems.append(Problem(message, item.name, self.name, self.file, item.line, warning))
            properties.append(Property(item.name, value, self.file, item.line))
        return Resolution(properties, problems)


@dataclass(frozen=True, slots=True)
class Document:
    """A document that is not a component, such as a subscription or a resiliency policy.

    `data` is the whole document with every scalar as the text written, or None for `null`.
    """

    kind: str
    api_version: str
    data: Mapping[str, Any] = field(repr=False)
    file: str | None = None
    line: int | None = None


def name_problem(name: str) -> str:
    """Return what is wrong with the name of a component, or empty text."""
    if not name:
        return "the component has no name; set metadata.name"
    if name in (".", "..") or "/" in name or "%" in name:
        return f"the component cannot be called {name!r}: no '/' or '%', and not '.' or '..'"
    return ""


def split_type(type: str) -> tuple[Kind | None, str, str]:
    """Split `state.sqlite` into kind and driver, in lower case. The third part is what is wrong, or empty."""
    prefix, dot, driver = type.lower().strip().partition(".")
    kind = next((kind for kind in Kind if kind.value == prefix), None)
    if not prefix:
        return None, "", "the component has no type; set spec.type, for example state.sqlite"
    if kind is None:
        kinds = ", ".join(kind.value for kind in Kind)
        hint = suggestion(prefix, [kind.value for kind in Kind])
        return None, driver, f"type {type!r} does not begin with one of {kinds}{hint}"
    if not dot or not driver:
        return None, "", f"type {type!r} names no driver; write for example {kind.value}.redis"
    return kind, driver, ""


def is_foreign(type: str) -> bool:
    """Tell whether the type belongs to a Dapr building block that lapel does not have."""
    return type.lower().strip().partition(".")[0] in _FOREIGN_KINDS


def normal_version(version: str) -> str:
    """Return the version in lower case; none, `v0` and `v1` are all `v1`."""
    lowered = version.strip().lower()
    return "v1" if lowered in ("", "v0") else lowered


def resolve_env(name: str, environ: Mapping[str, str] | None = None) -> str | None:
    """Return the environment variable that an `envRef` names, None when it is not set.

    Raises `InvalidArgumentError` for a name that component files may not read: `APP_API_TOKEN`, names starting with
    `DAPR_`, empty ones and those with a space, and with `DAPR_ENV_KEYS` set all that are not in its list.
    """
    environ = os.environ if environ is None else environ
    upper = name.upper()
    if not upper or " " in upper or upper == "APP_API_TOKEN" or upper.startswith("DAPR_"):
        raise InvalidArgumentError(f"may not read the environment variable {name!r}")
    allowed = environ.get("DAPR_ENV_KEYS", "").upper().split()
    if allowed and upper not in allowed:
        raise InvalidArgumentError(f"may not read the environment variable {name!r}: DAPR_ENV_KEYS does not list it")
    return environ.get(name)


def expand_tags(
    value: str, app_id: str | None = None, namespace: str | None = None, pod_name: str | None = None
) -> str:
    """Replace `{uuid}` (a new one each time), `{podName}`, `{namespace}` (namespace, dot, app id) and `{appID}`.

    Raises `InvalidArgumentError` when the value has a tag whose content is not known.
    """

    def replacement(match: re.Match[str]) -> str:
        match match[1]:
            case "uuid":
                return str(uuid.uuid4())
            case "podName":
                return _known(pod_name, "{podName}", "POD_NAME is not set")
            case "namespace":
                app = _known(app_id, "{namespace}", "there is no app id")
                return f"{_known(namespace, '{namespace}', 'there is no namespace')}.{app}"
            case _:
                return _known(app_id, "{appID}", "there is no app id")

    return _TAG.sub(replacement, value)


def _known(content: str | None, tag: str, reason: str) -> str:
    if not content:
        raise InvalidArgumentError(f"uses {tag}, but {reason}")
    return content


def _item(name: str, value: object) -> MetadataItem:
    if isinstance(value, SecretRef):
        return MetadataItem(name, secret_ref=value)
    if value is None or isinstance(value, (str, Secret)):
        return MetadataItem(name, value)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return MetadataItem(name, ",".join(to_text(item) or "" for item in value))
    return MetadataItem(name, to_text(value))


def _plain(secret: str | Secret | None) -> str | None:
    return secret.reveal() if isinstance(secret, Secret) else secret


def _from_environment(name: str, environ: Mapping[str, str]) -> tuple[Secret | None, str, bool]:
    """Return the value, what is wrong, and whether that is only a warning."""
    try:
        found = resolve_env(name, environ)
    except InvalidArgumentError as exc:
        return None, exc.message, False
    if found is None:
        return None, f"reads the environment variable {name!r}, which is not set", True
    return Secret(found), "", False


def _expanded(value: str, app_id: str | None, namespace: str | None, pod_name: str | None) -> tuple[str | None, str]:
    """Return the value and what is wrong."""
    try:
        return expand_tags(value, app_id, namespace, pod_name), ""
    except InvalidArgumentError as exc:
        return None, exc.message
