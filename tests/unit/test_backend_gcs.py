"""The emulator of Google Cloud Storage honours what the driver relies on."""

from __future__ import annotations

import urllib.error
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from tests.backends.gcs import GcsBackend


def put(server: GcsBackend, bucket: str, name: str, data: bytes, condition: str = "") -> int:
    """Upload, and return the status of the answer."""
    path = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}{condition}"
    try:
        server.call("POST", path, data, "text/plain")
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    return 200


@pytest.mark.parametrize("racers", [2, 16])
def test_one_of_those_who_create_an_object_at_once_wins(gcs_server: GcsBackend, gcs_bucket: str, racers: int) -> None:
    for heat in range(10):
        start = Barrier(racers)
        name = f"race-{heat}"

        def race(number: int, name: str = name, start: Barrier = start) -> int:
            start.wait()
            return put(gcs_server, gcs_bucket, name, str(number).encode(), "&ifGenerationMatch=0")

        with ThreadPoolExecutor(racers) as pool:
            outcomes = list(pool.map(race, range(racers)))
        assert sorted(outcomes) == [200] + [412] * (racers - 1)
        assert gcs_server.content(gcs_bucket, name) == str(outcomes.index(200)).encode()


def test_an_upload_for_a_stale_generation_is_refused(gcs_server: GcsBackend, gcs_bucket: str) -> None:
    assert put(gcs_server, gcs_bucket, "object", b"one") == 200
    generation = gcs_server.attributes(gcs_bucket, "object")["generation"]
    assert put(gcs_server, gcs_bucket, "object", b"two", f"&ifGenerationMatch={generation}") == 200
    assert put(gcs_server, gcs_bucket, "object", b"three", f"&ifGenerationMatch={generation}") == 412
    assert gcs_server.content(gcs_bucket, "object") == b"two"
