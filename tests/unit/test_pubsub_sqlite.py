"""pubsub.sqlite through the bare driver: what reaches whom, what it costs, and which databases are taken."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.unit.pubsub_sqlite_support import Opener, ack, count, nothing, publish, subscribe, take, texts
from tests.unit.pubsub_sqlite_support import opened as opened

from lapel.descriptor import Capability
from lapel.errors import ClosedError, ConfigurationError, InvalidArgumentError, SettingsError, StorageError
from lapel.pubsub.types import BulkPublishRequest, PublishRequest
from lapel_contrib.sqlite import pubsub as pubsub_module
from lapel_contrib.sqlite import pubsub_queue, pubsub_schema
from lapel_contrib.sqlite.settings import SqlitePubSubSettings

# what a message carries, who gets it


async def test_everything_published_with_a_message_arrives(opened: Opener) -> None:
    driver = await opened()
    consumer = await subscribe(driver)
    data, metadata = bytes(range(256)), {"ä": "ß", "empty": ""}
    await driver.publish(PublishRequest("t", data, content_type="image/png", key="k", metadata=metadata))
    (delivery,) = await take(consumer)
    assert (delivery.data, delivery.content_type, delivery.key, delivery.topic) == (data, "image/png", "k", "t")
    assert (delivery.metadata, delivery.attempt) == (metadata, 1)


async def test_another_process_gets_what_is_published(opened: Opener) -> None:
    here, there = await opened(), await opened()
    consumer = await subscribe(there)
    receiving = asyncio.create_task(take(consumer))
    await publish(here, "hello")
    assert texts(await receiving) == ["hello"]


async def test_groups_each_get_all_and_members_share(opened: Opener) -> None:
    one, two = await opened(), await opened()
    a1, a2, b = await subscribe(one, "a"), await subscribe(two, "a"), await subscribe(two, "b")
    await publish(one, *(str(number) for number in range(6)))
    first, second, other = await take(a1, 3), await take(a2, 6), await take(b)
    assert sorted(texts([*first, *second])) == ["0", "1", "2", "3", "4", "5"]
    assert len(first) == 3
    assert texts(other) == ["0", "1", "2", "3", "4", "5"]


async def test_a_group_starts_with_its_creation_and_is_remembered(opened: Opener) -> None:
    driver = await opened()
    await publish(driver, "nobody")
    await (await subscribe(driver)).close()
    await publish(driver, "kept")
    await driver.close()
    again = await opened()
    late = await subscribe(again, "late")
    assert texts(await take(await subscribe(again))) == ["kept"]
    assert await nothing(late)


async def test_topics_do_not_leak(opened: Opener) -> None:
    driver = await opened()
    other = await subscribe(driver, topic="other")
    consumer = await subscribe(driver)
    await publish(driver, "x")
    assert texts(await take(consumer)) == ["x"]
    assert await nothing(other)


async def test_a_message_that_no_group_waits_for_is_not_stored(opened: Opener) -> None:
    driver = await opened()
    await publish(driver, "x")
    assert count(driver, "pubsub_messages") == 0


async def test_a_message_is_deleted_when_the_last_group_has_settled_it(opened: Opener) -> None:
    driver = await opened()
    a, b = await subscribe(driver, "a"), await subscribe(driver, "b")
    await publish(driver, "x")
    await ack(a, *await take(a))
    assert count(driver, "pubsub_messages") == 1
    await ack(b, *await take(b))
    assert (count(driver, "pubsub_messages"), count(driver, "pubsub_deliveries")) == (0, 0)


async def test_bulk_publish_stores_the_good_entries_and_names_the_bad_one(opened: Opener) -> None:
    driver = await opened(max_message_bytes=10)
    consumer = await subscribe(driver)
    entries = tuple(PublishRequest("t", data) for data in (b"1", b"x" * 11, b"3"))
    errors = await driver.bulk_publish(BulkPublishRequest("t", entries))
    assert [type(error) for error in errors] == [type(None), InvalidArgumentError, type(None)]
    assert "maxMessageBytes" in str(errors[1])
    assert texts(await take(consumer)) == ["1", "3"]
    assert list(await driver.bulk_publish(BulkPublishRequest("t", ()))) == []


async def test_a_message_over_the_limit_is_refused(opened: Opener) -> None:
    driver = await opened(max_message_bytes=10)
    await publish(driver, "x" * 10)
    with pytest.raises(InvalidArgumentError, match="11 bytes; maxMessageBytes allows 10"):
        await publish(driver, "x" * 11)
    assert driver.limits.value_bytes == 10


@pytest.mark.parametrize(
    "fields", [{"topic": "\ud800"}, {"key": "\ud800"}, {"content_type": "\ud800"}, {"metadata": {"a": "\ud800"}}]
)
async def test_text_that_is_no_unicode_is_refused(opened: Opener, fields: dict[str, Any]) -> None:
    driver = await opened()
    await subscribe(driver)
    with pytest.raises(InvalidArgumentError, match="valid Unicode"):
        await driver.publish(PublishRequest(**{"topic": "t", "data": b"", **fields}))


# plans


@pytest.mark.parametrize("module", [pubsub_queue, pubsub_schema])
async def test_no_statement_reads_more_rows_than_it_needs(opened: Opener, module: Any) -> None:
    driver = await opened()
    whole = {"_IDLE_GROUPS": "SCAN pubsub_groups", "_LAG": "(group_id=?)", "_NEXT_DUE": "_due (group_id=?)"}
    with closing(sqlite3.connect(driver.settings.connection_string)) as connection:
        for name, sql in vars(module).items():
            if name.startswith("_") and isinstance(sql, str) and sql.startswith(("SELECT", "UPDATE", "DELETE")):
                numbered = max((number for number in range(1, 9) if f"?{number}" in sql), default=0)
                plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", [1] * (numbered or sql.count("?"))).fetchall()
                for *_, line in plan:
                    assert "TEMP B-TREE" not in line, (name, plan)
                    narrow = any(column in line for column in ("state=?", "state<?", "message_id=?", "due<?"))
                    assert (
                        narrow
                        or "rowid" in line
                        or "expires_at<?" in line
                        or "SUBQUERY" in line
                        or whole.get(name, "-") in line
                    ), (name, plan)


# opening


async def test_a_network_file_system_is_refused(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pubsub_module, "network_filesystem", lambda path: "nfs4")
    with pytest.raises(ConfigurationError, match=r"network file system \(nfs4\).*use a local disk"):
        await opened()


async def test_a_read_only_database_is_refused(opened: Opener, tmp_path: Path) -> None:
    await (await opened()).close()
    with pytest.raises(ConfigurationError, match="read-only"):
        await opened(f"file:{tmp_path}/broker.db?mode=ro")


async def test_foreign_tables_are_refused(opened: Opener, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "broker.db")) as connection:
        connection.execute("CREATE TABLE pubsub_messages (id INTEGER PRIMARY KEY, text TEXT)")
    with pytest.raises(StorageError, match=r"table 'pubsub_messages' exists and is not one"):
        await opened()


async def test_a_database_in_memory_is_not_durable_and_says_so(opened: Opener) -> None:
    driver = await opened(":memory:")
    assert Capability.DURABLE not in driver.capabilities
    assert "in memory" in driver.withdrawn[Capability.DURABLE]
    consumer = await subscribe(driver)
    await publish(driver, "x")
    assert texts(await take(consumer)) == ["x"]


async def test_closing_the_driver_closes_its_consumers(opened: Opener) -> None:
    driver = await opened()
    consumer = await subscribe(driver)
    await driver.close()
    with pytest.raises(ClosedError):
        await take(consumer)
    with pytest.raises(ClosedError):
        await publish(driver, "x")


def test_a_group_expiry_shorter_than_the_signs_of_life_is_refused() -> None:
    with pytest.raises(SettingsError, match="groupExpiry"):
        SqlitePubSubSettings.parse({"connectionString": "x.db", "groupExpiry": "5m"})
