"""What is read, and how."""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import Any

import pytest

from ...descriptor import Capability
from ...errors import InvalidArgumentError, NotFoundError, UnsupportedError
from ...secretstores import SecretStore
from ..marks import contract, lacks, needs, row
from ..subject import Subject
from .base import SECRETS, SecretStoreBase, eventually, put
from .writers import SecretWriter

__all__ = ["ReadingTests"]

VALUES = {
    "unicode": "ünïcode ☃ 日本 😀",
    "pem": "-----BEGIN PRIVATE KEY-----\nMIIBVgIBADANBg==\n-----END PRIVATE KEY-----\n",
    "spaces": "  around\tand within \r\n",
    "quotes": "\"double\" 'single' \\ $HOME ${HOME} %PATH%",
    "json": '{"a": ["b"]}',
    "large": "x" * 65536,
}
NAMES = ("with/slash", "with.dot", "with:colon", "with space", "ünïcode", "UPPER", "upper")


class ReadingTests(SecretStoreBase):
    """Get and bulk get."""

    @row("SC-02")
    @contract
    async def test_a_secret_is_read(self, store: SecretStore) -> None:
        for name, value in SECRETS.items():
            found = await store.get(name)
            assert dict(found) == {name: value}
            assert found.value == value

    @row("SC-03")
    @needs(Capability.BULK_SECRETS)
    @contract
    async def test_all_secrets_are_read(self, store: SecretStore) -> None:
        found = await store.bulk_get()
        assert {name: dict(found[name]) for name in SECRETS} == {name: {name: value} for name, value in SECRETS.items()}

    @row("SC-03")
    @lacks(Capability.BULK_SECRETS)
    async def test_an_undeclared_bulk_get_is_refused(self, store: SecretStore) -> None:
        with pytest.raises(UnsupportedError):
            await store.bulk_get()

    @row("stricter-074")
    @contract
    async def test_a_missing_secret_is_not_found(self, store: SecretStore, base: str) -> None:
        for name in (base, "conftestsecret2", "conftestsecre", "CONFTESTSECRET-"):
            with pytest.raises(NotFoundError):
                await store.get(name)

    @row("stricter-074")
    async def test_a_name_that_is_no_text_is_refused(self, store: SecretStore) -> None:
        wrong: list[Any] = ["", "a\0b", "\ud800", 5, None]
        for name in wrong:
            with pytest.raises(InvalidArgumentError):
                await store.get(name)

    @row("stricter-075")
    @contract
    async def test_an_empty_value_is_a_value(
        self, subject: Subject, store: SecretStore, writer: SecretWriter, base: str
    ) -> None:
        if self.option(subject, "emptyValues") != "true":
            pytest.skip("the store cannot hold empty values")
        await put(store, writer, {base: {base: ""}})
        assert dict(await store.get(base)) == {base: ""}
        writer.remove([base])

    @row("stricter-076")
    @needs(Capability.MULTIPLE_KEY_VALUES_PER_SECRET)
    @contract
    async def test_several_fields_are_read(self, store: SecretStore, writer: SecretWriter, base: str) -> None:
        fields = {"user": "ops", "password": "p:w", "with space": "x"}
        await put(store, writer, {base: fields})
        found = await store.get(base)
        assert dict(found) == fields
        with pytest.raises(ValueError, match="3 fields"):
            _ = found.value
        writer.remove([base])

    @row("stricter-076")
    @lacks(Capability.MULTIPLE_KEY_VALUES_PER_SECRET)
    @contract
    async def test_without_the_flag_every_secret_has_one_field_of_its_name(self, store: SecretStore) -> None:
        names = list(await store.bulk_get()) if Capability.BULK_SECRETS in store.capabilities else list(SECRETS)
        for name in names:
            with suppress(NotFoundError):  # removed since
                assert list(await store.get(name)) == [name]

    @row("stricter-077")
    @contract
    @pytest.mark.parametrize("kind", VALUES)
    async def test_values_come_back_exactly(
        self, store: SecretStore, writer: SecretWriter, base: str, kind: str
    ) -> None:
        await put(store, writer, {base: {base: VALUES[kind]}})
        assert (await store.get(base)).value == VALUES[kind]
        if Capability.BULK_SECRETS in store.capabilities:
            assert (await store.bulk_get())[base].value == VALUES[kind]
        writer.remove([base])

    @row("stricter-077")
    @contract
    async def test_odd_names_are_told_apart(self, store: SecretStore, writer: SecretWriter, base: str) -> None:
        secrets = {f"{base}{name}": {f"{base}{name}": name} for name in NAMES}
        await put(store, writer, secrets)
        for name, fields in secrets.items():
            assert dict(await store.get(name)) == fields
        writer.remove(secrets)

    @row("stricter-078")
    @needs(Capability.SECRET_VERSIONS)
    @contract
    async def test_an_old_version_is_read_by_its_id(self, store: SecretStore, writer: SecretWriter, base: str) -> None:
        versions = [writer.put({base: {base: value}})[base] for value in ("old", "new")]
        for version, value in zip(versions, ("old", "new"), strict=True):
            assert (await store.get(base, metadata={"version_id": version})).value == value
        with pytest.raises(NotFoundError):
            await store.get(base, metadata={"version_id": uuid.uuid4().hex})
        writer.remove([base])

    @row("stricter-078")
    @lacks(Capability.SECRET_VERSIONS)
    async def test_an_undeclared_version_is_refused(self, store: SecretStore) -> None:
        with pytest.raises(UnsupportedError):
            await store.get("conftestsecret", metadata={"version_id": "1"})

    @row("stricter-079")
    @needs(Capability.BULK_SECRETS)
    @contract
    async def test_a_large_bulk_is_complete(self, store: SecretStore, writer: SecretWriter, base: str) -> None:
        secrets = {f"{base}{number}": {f"{base}{number}": str(number)} for number in range(260)}
        await put(store, writer, secrets)
        found = await store.bulk_get()
        assert {name: dict(found[name]) for name in secrets} == secrets
        writer.remove(secrets)

    @row("stricter-080")
    @contract
    async def test_changes_are_seen_or_not_as_pinned(
        self, subject: Subject, store: SecretStore, writer: SecretWriter, base: str
    ) -> None:
        refresh = self.option(subject, "refresh") == "true"
        writer.put({base: {base: "added"}})
        if not refresh:
            with pytest.raises(NotFoundError):
                await store.get(base)
            return
        for value in ("added", "alter", "again"):
            await put(store, writer, {base: {base: value}})
        writer.remove([base])

        async def gone() -> bool:
            try:
                await store.get(base)
            except NotFoundError:
                return True
            return False

        await eventually(gone, lambda: "a removed secret is still read")
