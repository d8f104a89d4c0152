"""What must not be seen, and what must not be taken for a source."""

from __future__ import annotations

import logging
import traceback
import uuid

import pytest

from ...descriptor import Capability
from ...errors import LapelError, NotFoundError
from ...secretstores import SecretStore
from ..marks import contract, row
from ..subject import Subject
from .base import SECRETS, SecretStoreBase, put
from .writers import SecretWriter

__all__ = ["SecrecyTests"]


class SecrecyTests(SecretStoreBase):
    """What must not be seen."""

    @row("stricter-081")
    async def test_no_value_is_shown(
        self, subject: Subject, store: SecretStore, writer: SecretWriter, base: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        canary = f"canary{uuid.uuid4().hex}"
        with caplog.at_level(logging.DEBUG):
            await put(store, writer, {base: {base: canary}})
            found = await store.get(base)
            shown = [repr(found), str(found), repr(store), repr(store.driver), repr(await store.health())]
            if Capability.BULK_SECRETS in store.capabilities:
                shown.append(repr(await store.bulk_get()))
            try:
                await store.get(f"{base}missing")
            except NotFoundError as exc:
                shown += [repr(exc), *traceback.format_exception(exc)]
        writer.remove([base])
        shown += [record.getMessage() + str(record.exc_text) for record in caplog.records]
        assert not [text for text in shown if canary in text]

    @row("stricter-081", "stricter-137")
    async def test_what_is_returned_belongs_to_the_caller(self, store: SecretStore) -> None:
        found = await store.get("conftestsecret")
        with pytest.raises(TypeError):
            found["conftestsecret"] = "changed"  # type: ignore[index]  # what a careless caller writes
        dict(found)["conftestsecret"] = "changed"
        assert (await store.get("conftestsecret")).value == SECRETS["conftestsecret"]
        if Capability.BULK_SECRETS in store.capabilities:
            (await store.bulk_get()).clear()
            assert "conftestsecret" in await store.bulk_get()

    @row("stricter-082")
    @contract
    async def test_hidden_names_are_hidden_everywhere(
        self, subject: Subject, store: SecretStore, writer: SecretWriter
    ) -> None:
        hidden = [name.strip() for name in str(self.option(subject, "hidden")).split(",") if name.strip()]
        if not hidden:
            pytest.skip("the component file names nothing `hidden` in its options")
        writer.put({name: {name: "secret"} for name in hidden})
        try:
            for name in hidden:
                with pytest.raises(NotFoundError):
                    await store.get(name)
            if Capability.BULK_SECRETS in store.capabilities:
                assert not set(hidden) & set(await store.bulk_get())
        finally:
            writer.remove(hidden)

    @row("stricter-083")
    async def test_a_malformed_source_fails_to_open_and_shows_nothing(
        self, subject: Subject, writer: SecretWriter
    ) -> None:
        canary = f"canary{uuid.uuid4().hex}"
        ways = list(writer.spoilt(canary))
        if not ways:
            pytest.skip("the source cannot be malformed")
        for way, spoilt in ways:
            with spoilt, pytest.raises(LapelError) as caught:
                await self.build(subject).open()
            assert canary not in "".join(traceback.format_exception(caught.value)), way
        async with self.build(subject) as store:
            await self.exercise(store, canary)
