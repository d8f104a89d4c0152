"""Decodes one component document: keys in any case, every finding with its line."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from ._fields import suggestion
from ._manifest import (
    DEFAULT_INIT_TIMEOUT,
    Document,
    Manifest,
    MetadataItem,
    SecretRef,
    is_foreign,
    name_problem,
    normal_version,
    split_type,
)
from ._yaml import YamlList, YamlMap, YamlNode, YamlScalar
from .errors import InvalidArgumentError, Problem
from .values import parse_bool, parse_duration

__all__ = ["COMPONENT_API", "Decoder"]

COMPONENT_API = "dapr.io/v1alpha1"

_DOCUMENT_KEYS = ("apiVersion", "kind", "metadata", "spec", "auth", "scopes", "status")
_SPEC_KEYS = ("type", "version", "initTimeout", "ignoreErrors", "metadata")
_ITEM_KEYS = ("name", "value", "secretKeyRef", "envRef")
# What Kubernetes adds to the metadata of every object.
_OBJECT_KEYS = (
    *("name", "namespace", "labels", "annotations", "creationTimestamp", "deletionGracePeriodSeconds"),
    *("deletionTimestamp", "finalizers", "generateName", "generation", "managedFields", "ownerReferences"),
    *("resourceVersion", "selfLink", "uid"),
)


class _Map:
    """A mapping whose keys are found in any case; without a node it is empty."""

    def __init__(self, node: YamlMap | None, line: int) -> None:
        self.line = node.line if node else line
        self.entries: dict[str, YamlNode] = {}
        self.lines: dict[str, int] = {}
        for key, value in node.entries.items() if node else ():
            self.entries[key.lower()] = value
            self.lines[key.lower()] = node.lines[key] if node else line

    def line_of(self, key: str) -> int:
        return self.lines.get(key.lower(), self.line)


class Decoder:
    """Decodes the documents of one file and gathers what is wrong with them.

    Documents for other apps or another namespace are left out without a look at the rest of them.
    """

    def __init__(self, file: str | None, app_id: str | None, namespace: str | None) -> None:
        self.file, self.app_id, self.namespace = file, app_id, namespace
        self.problems: list[Problem] = []
        self._component: str | None = None
        self._failed = False

    def decode(self, node: YamlNode) -> Manifest | Document | None:
        """Return the component or the other document; None for one that is wrong, foreign or out of scope."""
        self._component = None
        self._failed = False
        if not isinstance(node, YamlMap):
            self._error("the document is not a mapping with apiVersion, kind, metadata and spec", node.line)
            return None
        top = _Map(node, node.line)
        kind, api = self._label(top, "kind"), self._label(top, "apiVersion")
        if kind == "Component" and api == COMPONENT_API:
            return self._manifest(node, top)
        if kind.lower() == "component" and (api.startswith("dapr.io/") or not api):
            self._warn(
                f"the document is skipped: a component has kind 'Component' and apiVersion {COMPONENT_API!r}, "
                f"not {kind!r} and {api!r}",
                top.line_of("apiVersion" if kind == "Component" else "kind"),
            )
        elif api.startswith("dapr.io/") and (hint := suggestion(kind, ["Component"])):
            self._warn(f"the document is skipped: its kind is {kind!r}{hint}", top.line_of("kind"))
        return Document(kind, api, node.data(), self.file, node.line)

    def _manifest(self, node: YamlMap, top: _Map) -> Manifest | None:
        meta = self._map(top, "metadata")
        name = self._text(meta, "name")
        bad_name = "" if self._failed else name_problem(name)
        self._component = name or None
        scopes = self._scopes(top)
        namespace = self._text(meta, "namespace") or None
        elsewhere = bool(namespace and self.namespace and namespace != self.namespace)
        if elsewhere or (not self._failed and scopes and self.app_id is not None and self.app_id not in scopes):
            return None
        spec, auth = self._map(top, "spec"), self._map(top, "auth")
        self._known(node, _DOCUMENT_KEYS)
        self._known(top.entries.get("metadata"), _OBJECT_KEYS)
        self._known(top.entries.get("spec"), _SPEC_KEYS)
        self._known(top.entries.get("auth"), ("secretStore",))
        if bad_name:
            self._error(bad_name, meta.line_of("name"), "metadata.name")
        written = self._text(spec, "type")
        if is_foreign(written):
            self._warn(f"the component is skipped: lapel has no {written.partition('.')[0]}", spec.line_of("type"))
            return None
        kind, driver, problem = split_type(written)
        if problem:
            self._error(problem, spec.line_of("type"), "spec.type")
        version = normal_version(self._text(spec, "version"))
        init_timeout = self._init_timeout(spec)
        ignore_errors = self._flag(spec, "ignoreErrors")
        metadata = tuple(self._metadata(spec))
        secret_store = self._text(auth, "secretStore") or None
        if self._failed or kind is None:
            return None
        return Manifest(
            name=name,
            kind=kind,
            driver=driver,
            version=version,
            metadata=metadata,
            init_timeout=init_timeout,
            ignore_errors=ignore_errors,
            secret_store=secret_store,
            scopes=scopes,
            namespace=namespace,
            file=self.file,
            line=node.line,
        )

    def _scopes(self, top: _Map) -> tuple[str, ...]:
        return tuple(self._item_text(item, "scopes") for item in self._list(top, "scopes"))

    def _init_timeout(self, spec: _Map) -> timedelta:
        text = self._text(spec, "initTimeout")
        if not text.strip():
            return DEFAULT_INIT_TIMEOUT
        line = spec.line_of("initTimeout")
        try:
            timeout = parse_duration(text)
        except InvalidArgumentError as exc:
            self._error(f"{exc.message}, not {text[:64]!r}", line, "spec.initTimeout")
            return DEFAULT_INIT_TIMEOUT
        if timeout <= timedelta():
            self._error(f"must be more than 0, not {text[:64]!r}", line, "spec.initTimeout")
        return timeout

    def _flag(self, spec: _Map, key: str) -> bool:
        text = self._text(spec, key)
        try:
            return bool(text.strip()) and parse_bool(text)
        except InvalidArgumentError as exc:
            self._error(f"{exc.message}, not {text[:64]!r}", spec.line_of(key), f"spec.{key}")
            return False

    def _metadata(self, spec: _Map) -> Iterable[MetadataItem]:
        for node in self._list(spec, "metadata"):
            if not isinstance(node, YamlMap):
                self._error("each entry is a map with name and value", node.line, "spec.metadata")
                continue
            entry = _Map(node, node.line)
            name = self._text(entry, "name")
            self._known(node, _ITEM_KEYS, name)
            if not name:
                self._error("an entry has no name", node.line, "spec.metadata")
                continue
            value = entry.entries.get("value")
            yield MetadataItem(
                name=name,
                value=value.value if isinstance(value, YamlScalar) else value.json() if value else None,
                secret_ref=self._secret_ref(entry, name),
                env_ref=self._text(entry, "envRef") or None,
                line=node.line,
            )

    def _secret_ref(self, entry: _Map, field: str) -> SecretRef | None:
        node = entry.entries.get("secretkeyref")
        if node is None or (isinstance(node, YamlScalar) and node.value is None):
            return None
        if not isinstance(node, YamlMap):
            self._error("secretKeyRef is a map with name and key", node.line, field)
            return None
        self._known(node, ("name", "key"), field)
        ref = _Map(node, node.line)
        name = self._text(ref, "name")
        if not name:
            self._error("secretKeyRef has no name; write the name of the secret", node.line, field)
        return SecretRef(name, self._text(ref, "key") or name)

    def _known(self, node: YamlNode | None, known: tuple[str, ...], field: str | None = None) -> None:
        if not isinstance(node, YamlMap):
            return
        folded = {key.lower() for key in known}
        for key in node.entries:
            if key.lower() not in folded:
                elsewhere = known is not _DOCUMENT_KEYS and key.lower() in ("auth", "scopes", "spec")
                hint = "; it belongs at the top of the document" if elsewhere else suggestion(key, known)
                self._warn(f"key {key[:64]!r} is not known and has no effect{hint}", node.lines[key], field)

    def _map(self, parent: _Map, key: str) -> _Map:
        node = parent.entries.get(key.lower())
        line = parent.line_of(key)
        if isinstance(node, YamlMap):
            return _Map(node, line)
        if node is not None and not (isinstance(node, YamlScalar) and node.value is None):
            self._error("must be a map", line, key)
        return _Map(None, line)

    def _list(self, parent: _Map, key: str) -> tuple[YamlNode, ...]:
        node = parent.entries.get(key.lower())
        if isinstance(node, YamlList):
            return node.items
        if node is not None and not (isinstance(node, YamlScalar) and node.value is None):
            self._error("must be a list", parent.line_of(key), key)
        return ()

    def _label(self, parent: _Map, key: str) -> str:
        node = parent.entries.get(key.lower())
        return (node.value or "") if isinstance(node, YamlScalar) else ""

    def _text(self, parent: _Map, key: str) -> str:
        node = parent.entries.get(key.lower())
        return "" if node is None else self._item_text(node, key)

    def _item_text(self, node: YamlNode, key: str) -> str:
        if isinstance(node, YamlScalar):
            return node.value or ""
        self._error("must be text", node.line, key)
        return ""

    def _error(self, message: str, line: int, field: str | None = None) -> None:
        self._failed = True
        self.problems.append(Problem(message, field, self._component, self.file, line))

    def _warn(self, message: str, line: int, field: str | None = None) -> None:
        self.problems.append(Problem(message, field, self._component, self.file, line, warning=True))
