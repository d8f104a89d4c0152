"""State: single keys, bulk, transactions, queries."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ...descriptor import Capability, Kind
from ...errors import (
    EtagInvalidError,
    EtagMismatchError,
    InvalidArgumentError,
    LapelError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from ...jsontext import JSON_CONTENT_TYPE
from ...state import DeleteOperation, SetOperation, StateItem, StateStore
from ..errors import HostError, bad_request, error_info, help_link, malformed, reason, resource_info
from ..http import JSON, NO_CONTENT, NO_METADATA, Request, Response, metadata_headers
from ..protojson import decode, is_json_text, rfc3339
from ..routing import Handler, Route

if TYPE_CHECKING:
    from ..host import Host

__all__ = ["routes"]

_STORES_PAGE = "https://docs.dapr.io/reference/components-reference/supported-state-stores/"


class _Options(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    concurrency: str | None = None
    consistency: str | None = None


class _Item(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """One item of a save, and the request of a transaction's operation."""

    key: str | None = None
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    etag: str | None = None
    metadata: dict[str, str] | None = None
    options: _Options | None = None
    content_type: str | None = msgspec.field(default=None, name="contentType")


class _BulkGet(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    keys: list[str] | None = None
    parallelism: int | None = None
    metadata: dict[str, str] | None = None


class _Operation(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    operation: str | None = None
    request: _Item | None = None


class _Transaction(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    operations: list[_Operation] | None = None
    metadata: dict[str, str] | None = None


_items = msgspec.json.Decoder(list[_Item])
_bulk_get = msgspec.json.Decoder(_BulkGet)
_transaction = msgspec.json.Decoder(_Transaction)


def routes(host: Host) -> list[Route]:
    """Return the routes of this API."""
    api = _State(host)
    store, key = "/v1.0/state/{store}", "/v1.0/state/{store}/{key}"
    search = "/v1.0-alpha1/state/{store}/query"
    ttl, content_type, consistency = "metadata.ttlInSeconds", "metadata.contentType", "consistency"

    def body(template: str, handler: Handler, summary: str, accepts: Any, *answers: int) -> Route:
        query = (ttl, content_type)
        return Route(
            ("POST", "PUT"), template, handler, "state", summary, "whole", accepts=accepts, query=query, answers=answers
        )

    return [
        body(store, api.save, "Save one or several items", list[_Item], 204),
        Route(("GET",), key, api.get, "state", "Read one item", query=(consistency,), answers=(200, 204)),
        Route(
            ("DELETE",),
            key,
            api.delete,
            "state",
            "Remove one item",
            query=(consistency, "concurrency"),
            headers=("If-Match",),
            answers=(204,),
        ),
        body(f"{store}/bulk", api.bulk_get, "Read several items", _BulkGet, 200),
        body(f"{store}/transaction", api.transaction, "Apply operations together", _Transaction, 204),
        body(search, api.query, "Find JSON values", {"filter": dict, "sort": list, "page": dict}, 200, 204),
    ]


class _State:
    def __init__(self, host: Host) -> None:
        self._host = host
        self._prefixed = host.options.app_id is not None

    async def get(self, request: Request) -> Response:
        name, key = request.parameters
        store = self._store(name)
        self._check_key(name, key)
        consistency = request.argument("consistency")
        try:
            item = await store.get(key, consistency=consistency, metadata=request.metadata())
        except LapelError as exc:
            text = f"fail to get {key} from state store {name}: {reason(exc)}"
            raise _failed(exc, "ERR_STATE_GET", text) from exc
        if item is None or not item.data:
            return NO_CONTENT
        headers = [] if item.etag is None else [(b"etag", item.etag.encode())]
        if item.metadata or item.expires_at is not None:
            headers += metadata_headers(_metadata_of(item))
        return Response(200, item.data, JSON, headers)

    async def save(self, request: Request) -> Response:
        name = request.parameters[0]
        store = self._store(name)
        items = decode(_items, request.body)
        try:
            if len(items) == 1:
                one = self._set(name, items[0], request.metadata(items[0].metadata))
                await store.set(
                    one.key,
                    one.value,
                    etag=one.etag,
                    concurrency=one.concurrency,
                    consistency=one.consistency,
                    content_type=one.content_type,
                    metadata=one.metadata,
                )
            elif items:
                operations = [self._set(name, item, request.metadata(item.metadata)) for item in items]
                outcomes = await store.bulk_set(operations)
                errors = [outcome.error for outcome in outcomes if outcome.error is not None]
                if errors:
                    raise _gravest(errors)
        except LapelError as exc:
            raise _write_failed(exc, "ERR_STATE_SAVE", f"failed saving state in state store {name}: ") from exc
        return NO_CONTENT

    async def delete(self, request: Request) -> Response:
        name, key = request.parameters
        store = self._store(name)
        self._check_key(name, key)
        try:
            await store.delete(
                key,
                etag=request.header(b"if-match"),
                concurrency=request.argument("concurrency"),
                consistency=request.argument("consistency"),
                metadata=request.metadata(),
            )
        except LapelError as exc:
            raise _write_failed(exc, "ERR_STATE_DELETE", f"failed deleting state with key {key}: ") from exc
        return NO_CONTENT

    async def bulk_get(self, request: Request) -> Response:
        name = request.parameters[0]
        store = self._store(name)
        body = decode(_bulk_get, request.body)
        keys = body.keys or []
        for key in keys:
            self._check_key(name, key)
        parallelism = body.parallelism or 0
        try:
            outcomes = await store.bulk_get(
                keys, parallelism=parallelism if parallelism > 0 else 10, metadata=request.metadata(body.metadata)
            )
        except LapelError as exc:
            raise _failed(exc, "ERR_STATE_BULK_GET", reason(exc)) from exc
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        if errors and len(errors) == len(outcomes):
            raise _failed(errors[0], "ERR_STATE_BULK_GET", reason(errors[0])) from errors[0]
        return Response.json([_found(outcome.key, outcome.item, outcome.error) for outcome in outcomes])

    async def transaction(self, request: Request) -> Response:
        name = request.parameters[0]
        store = self._store(name)
        if not store.capabilities & (Capability.TRANSACTIONAL | Capability.SAME_SLOT_TRANSACTIONAL):
            raise HostError(
                500,
                "ERR_STATE_STORE_NOT_SUPPORTED",
                f"state store {name} doesn't support transactions",
                [
                    help_link(_STORES_PAGE, "Check the list of state stores and the features they support"),
                    resource_info("state", name),
                    error_info("DAPR_STATE_TRANSACTIONS_NOT_SUPPORTED"),
                ],
            )
        body = decode(_transaction, request.body)
        given = body.operations or []
        if not given:
            return NO_CONTENT
        limit = store.limits.transaction_operations
        if limit is not None and len(given) > limit:
            raise _too_many(name, len(given), limit)
        metadata = request.metadata(body.metadata)
        operations = [self._operation(name, operation, metadata) for operation in given]
        try:
            await store.transaction(operations, metadata=metadata)
        except LapelError as exc:
            text = f"error while executing state transaction: {reason(exc)}"
            raise _failed(exc, "ERR_STATE_TRANSACTION", text) from exc
        return NO_CONTENT

    async def query(self, request: Request) -> Response:
        name = request.parameters[0]
        store = self._store(name)
        try:
            result = await store.query(request.body or b"{}", metadata=request.metadata())
        except UnsupportedError as exc:
            raise HostError(
                500,
                "ERR_STATE_STORE_NOT_SUPPORTED",
                "state store does not support querying",
                [resource_info("state", name), error_info("DAPR_STATE_QUERYING_NOT_SUPPORTED")],
            ) from exc
        except InvalidArgumentError as exc:
            raise malformed(f"failed to parse JSON query body: {reason(exc)}") from exc
        except LapelError as exc:
            raise HostError(
                500,
                "ERR_STATE_QUERY",
                f"state store {name} query failed: {reason(exc)}",
                [resource_info("state", name), error_info("DAPR_STATE_QUERY_FAILED")],
            ) from exc
        if not result.items:
            return NO_CONTENT
        body: dict[str, Any] = {"results": [_found(hit.key, hit.item, None, flat=True) for hit in result.items]}
        if result.token:
            body["token"] = result.token
        if result.metadata:
            body["metadata"] = result.metadata
        return Response.json(body)

    def _store(self, name: str) -> StateStore:
        try:
            return self._host.components.state(name)
        except (NotFoundError, UnavailableError) as exc:
            if not self._host.has(Kind.STATE):
                raise HostError(
                    500,
                    "ERR_STATE_STORE_NOT_CONFIGURED",
                    f"state store {name} is not configured",
                    [error_info("DAPR_STATE_NOT_CONFIGURED", {"appID": self._host.options.app_id or ""})],
                ) from exc
            raise HostError(
                400,
                "ERR_STATE_STORE_NOT_FOUND",
                f"state store {name} is not found",
                [error_info("DAPR_STATE_NOT_FOUND")],
            ) from exc

    def _check_key(self, store: str, key: str) -> None:
        """Refuse keys that no store takes, before anything is sent."""
        if self._prefixed and "||" in key:
            text = f"input key/keyPrefix '{key}' can't contain '||'"
            details = [bad_request(key, text), resource_info("state", store), error_info("DAPR_STATE_ILLEGAL_KEY")]
            raise malformed(text, details)
        if "\0" in key:
            raise malformed("a key cannot hold a NUL character")
        if not key:
            raise malformed('"key" is a required field')

    def _set(self, store: str, item: _Item, metadata: Mapping[str, str]) -> SetOperation:
        if not item.key:
            raise malformed('"key" is a required field')
        self._check_key(store, item.key)
        options = item.options
        if options is None:
            options = _NO_OPTIONS
        else:
            _check_words(store, options)
        if metadata:
            _check_ttl(store, metadata)
        return SetOperation(
            item.key,
            b"null" if isinstance(item.value, msgspec.UnsetType) else bytes(item.value),
            item.etag,
            options.concurrency,
            options.consistency,
            None,
            item.content_type or metadata.get("contentType") or JSON_CONTENT_TYPE,
            metadata,
        )

    def _operation(
        self, store: str, operation: _Operation, metadata: Mapping[str, str]
    ) -> SetOperation | DeleteOperation:
        if operation.operation not in ("upsert", "delete"):
            text = f"operation type {operation.operation or ''} not supported"
            raise HostError(400, "ERR_NOT_SUPPORTED_STATE_OPERATION", text)
        item = operation.request or _Item()
        write = self._set(store, item, {**(item.metadata or {}), **metadata} or NO_METADATA)
        if operation.operation == "upsert":
            return write
        return DeleteOperation(write.key, write.etag, write.concurrency, write.consistency, write.metadata)


_NO_OPTIONS = _Options()
_WHOLE = re.compile("-?[0-9]{1,12}")
_WORDS = {"concurrency": ("", "first-write", "last-write"), "consistency": ("", "strong", "eventual")}


def _check_words(store: str, options: _Options) -> None:
    """Refuse options of one item before any item is written."""
    for what, allowed in _WORDS.items():
        word = getattr(options, what)
        if word and word not in allowed:
            raise malformed(f"failed saving state in state store {store}: unrecognized {what} model '{word}'")


def _check_ttl(store: str, metadata: Mapping[str, str]) -> None:
    """Refuse a lifetime of one item before any item is written."""
    ttl = metadata.get("ttlInSeconds")
    if ttl and not (_WHOLE.fullmatch(ttl) and -1 <= int(ttl) < 2**31):
        raise malformed(f"failed saving state in state store {store}: incorrect value for metadata 'ttlInSeconds'")


def _too_many(store: str, count: int, limit: int) -> HostError:
    return HostError(
        400,
        "ERR_STATE_STORE_TOO_MANY_TRANSACTIONS",
        f"the transaction contains {count} operations, which is more than what the state store supports: {limit}",
        [
            resource_info("state", store),
            error_info(
                "DAPR_STATE_TOO_MANY_TRANSACTIONS",
                {"currentOpsTransaction": str(count), "maxOpsPerTransaction": str(limit)},
            ),
        ],
    )


def _failed(exc: LapelError, code: str, text: str) -> HostError:
    """Return the answer to an operation that failed; an argument that no store takes is the caller's fault."""
    return malformed(text) if isinstance(exc, InvalidArgumentError) else HostError(500, code, text)


def _write_failed(exc: LapelError, code: str, before: str) -> HostError:
    if isinstance(exc, EtagMismatchError):
        text = f"{before}possible etag mismatch. error from state store: {reason(exc)}"
        return HostError(409, code, text)
    if isinstance(exc, EtagInvalidError):
        return HostError(400, code, f"{before}invalid etag value: {reason(exc)}")
    return _failed(exc, code, before + reason(exc))


def _gravest(errors: Sequence[LapelError]) -> LapelError:
    """Return the error that says most about a bulk: a failure before a conflict before a wrong argument."""
    ranks = (InvalidArgumentError, EtagInvalidError, EtagMismatchError)
    return max(errors, key=lambda error: next((rank for rank, kind in enumerate(ranks) if isinstance(error, kind)), 9))


def _metadata_of(item: StateItem) -> dict[str, str]:
    metadata = dict(item.metadata)
    if item.expires_at is not None:
        metadata["ttlExpireTime"] = rfc3339(item.expires_at)
    return metadata


def _found(key: str, item: StateItem | None, error: LapelError | None, *, flat: bool = False) -> dict[str, Any]:
    """Return one entry of a bulk get or, `flat`, of a query, without what is empty."""
    entry: dict[str, Any] = {"key": key}
    if error is not None:
        entry["error"] = reason(error)
    if item is None:
        return entry
    if item.data:
        value = _embedded(item.data)
        if value is None:
            entry["error"] = "the value is neither JSON nor text; read it by its key alone"
        else:
            entry["data"] = value
    if item.etag:
        entry["etag"] = item.etag
    if not flat and (metadata := _metadata_of(item)):
        entry["metadata"] = metadata
    return entry


def _embedded(data: bytes) -> msgspec.Raw | str | None:
    if is_json_text(data):
        return msgspec.Raw(data)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
