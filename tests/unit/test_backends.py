"""The backends of the tests are what they say they are, can be broken on purpose, and end with the run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.backends import compose, fixtures, launcher, ports, provision, redis_node
from tests.backends.__main__ import main
from tests.backends.backend import NotOurs
from tests.backends.certificates import TlsFiles
from tests.backends.launcher import is_required, named_addresses, technologies
from tests.backends.process import Died, Process
from tests.backends.provision import Unavailable
from tests.backends.redis import RedisBackend, attach
from tests.backends.redis_address import Mode, RedisAddress
from tests.backends.redis_fixtures import OwnRedis
from tests.backends.redis_groups import RedisCluster, RedisSentinel
from tests.backends.redis_node import RedisOptions
from tests.backends.resp import ReplyError

ROOT = Path(__file__).parents[2]
NO_LOGIN = RedisOptions(auth="none")


@pytest.fixture(autouse=True)
def _no_endpoint_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have these tests choose for themselves where a backend comes from."""
    for technology in technologies().values():
        monkeypatch.delenv(technology.variable, raising=False)


def nobody_listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# where a backend comes from


def test_an_endpoint_in_the_environment_wins_over_compose_and_own_processes(
    own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, composed = own_redis.server(), own_redis.server(NO_LOGIN)
    publisher = {"TargetPort": 6379, "PublishedPort": composed.port}
    container = {"Service": "redis", "Health": "healthy", "Publishers": [publisher]}
    monkeypatch.setattr(compose, "_running", lambda: (container,))
    redis = technologies()["redis"]

    found = redis.found()
    assert isinstance(found, RedisBackend)
    assert (found.port, found.facts.origin) == (composed.port, "docker compose")

    monkeypatch.setenv("LAPEL_TEST_REDIS", named.url)
    found = redis.found()
    assert isinstance(found, RedisBackend)
    assert (found.port, found.facts.origin) == (named.port, "LAPEL_TEST_REDIS")
    assert found.call("PING") == b"PONG"

    monkeypatch.delenv("LAPEL_TEST_REDIS")
    monkeypatch.setattr(compose, "_running", lambda: ({**container, "Health": "unhealthy"},))
    assert redis.found() is None
    assert redis.facts().origin == "own process"


@pytest.mark.parametrize(
    ("variable", "url", "message"),
    [
        ("LAPEL_TEST_REDIS", "redis://127.0.0.1:1", "LAPEL_TEST_REDIS names a Redis that does not serve"),
        ("LAPEL_TEST_REDIS", "http://127.0.0.1", "LAPEL_TEST_REDIS names a Redis that does not serve: expected redis"),
        ("LAPEL_TEST_REDIS_CLUSTER", "{url}", "runs as node; expected cluster"),
        ("LAPEL_TEST_REDIS_STACK", "{url}", "without the modules json, search"),
    ],
)
def test_an_endpoint_that_does_not_fit_is_an_error_and_not_replaced(
    own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch, variable: str, url: str, message: str
) -> None:
    monkeypatch.setenv(variable, url.format(url=own_redis.server().url))
    (technology,) = (one for one in technologies().values() if one.variable == variable)
    with pytest.raises(Unavailable, match=message):
        technology.found()


def test_a_backend_of_somebody_else_is_never_stopped(own_redis: OwnRedis) -> None:
    own = own_redis.server()
    somebody_elses = attach(own.url, "node", "LAPEL_TEST_REDIS")
    for act in (somebody_elses.stop, somebody_elses.freeze, somebody_elses.kill, somebody_elses.restart):
        with pytest.raises(NotOurs, match="LAPEL_TEST_REDIS"):
            act()
    somebody_elses.close()
    assert own.call("PING") == b"PONG"


@pytest.mark.parametrize(
    ("ci", "require", "required"),
    [
        ("", "", False),
        ("true", "", True),
        ("false", "", False),
        ("", "redis-tls, redis", True),
        ("", "redis-tls", False),
        ("", "all", True),
    ],
)
def test_a_missing_backend_skips_here_and_fails_where_it_is_required(
    monkeypatch: pytest.MonkeyPatch, ci: str, require: str, required: bool
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("REQUIRE", require)
    assert is_required("redis") is required
    outcome = pytest.fail.Exception if required else pytest.skip.Exception
    with pytest.raises(outcome, match="backend redis: no redis-server"):
        fixtures._missing("redis", Unavailable("no redis-server"))


def test_only_hosts_that_the_environment_names_may_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPEL_TEST_REDIS", "redis://u:p%40@192.0.2.1:6379/?ca=/tmp/ca")
    monkeypatch.setenv("LAPEL_TEST_REDIS_CLUSTER", "redis://192.0.2.2:1,192.0.2.3:2")
    assert named_addresses() == {"192.0.2.1", "192.0.2.2", "192.0.2.3"}


def test_status_tells_what_each_backend_is_and_why_one_is_missing(
    own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = own_redis.server()
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("LAPEL_TEST_REDIS", server.url)
    assert main(["status", "--only", "redis"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("redis "))
    assert line.split() == ["redis", "real", server.facts.version, "LAPEL_TEST_REDIS"]

    monkeypatch.setenv("PATH", "")
    assert main(["status", "--only", "redis-cluster"]) == 1
    printed = capsys.readouterr().out
    assert "missing" in printed
    assert "apt-get install redis-server" in printed


# what it can do


def test_a_restarted_server_keeps_its_port_its_login_and_its_data(own_redis: OwnRedis) -> None:
    server = own_redis.server(RedisOptions(persistent=True))
    server.call("SET", "key", "value")
    before = server.url, server.processes[0].pid
    server.restart()
    assert (server.url, server.call("GET", "key")) == (before[0], b"value")
    assert server.processes[0].pid != before[1]
    server.kill()
    server.start()
    assert server.call("GET", "key") == b"value"


def test_a_frozen_server_answers_nothing_until_it_is_thawed(own_redis: OwnRedis) -> None:
    server = own_redis.server()
    with server.connect(timeout=0.2) as connection:
        connection.call("SET", "key", "value")
        server.freeze()
        with pytest.raises(TimeoutError):
            connection.call("GET", "key")
        with pytest.raises(TimeoutError):
            server.connect(timeout=0.2)
        server.thaw()
    assert server.call("GET", "key") == b"value"
    server.freeze()
    server.stop()
    assert nobody_listens(server.port)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_an_ended_server_leaves_no_process(own_redis: OwnRedis, end: str) -> None:
    server = own_redis.server()
    pid = server.processes[0].pid
    assert pid is not None
    getattr(server, end)()
    assert server.processes[0].pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert nobody_listens(server.port)


def test_a_port_that_is_taken_in_between_is_replaced(own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = own_redis.server().port
    chosen = iter([taken])
    monkeypatch.setattr(redis_node, "free_port", lambda offsets: next(chosen, None) or ports.free_port(offsets=offsets))
    server = own_redis.server()
    assert server.port != taken
    assert server.call("PING") == b"PONG"


def test_a_server_that_cannot_start_is_reported_with_its_log(own_redis: OwnRedis) -> None:
    wrong = RedisOptions(settings={"maxmemory-policy": "no-such-policy"})
    with pytest.raises((pytest.skip.Exception, pytest.fail.Exception), match="maxmemory-policy"):
        own_redis.server(wrong)


def test_a_process_that_never_serves_is_given_up(tmp_path: Path) -> None:
    def check(_pid: int) -> None:
        raise OSError("not yet")

    process = Process("sleeper", ["sleep", "60"], folder=tmp_path, check=check, patience=0.05)
    with pytest.raises(Died, match=r"not ready after 0\.05 s: not yet"):
        process.start()
    process.kill()


# the shapes of Redis


def test_only_the_random_user_may_log_in(redis_server: RedisBackend) -> None:
    assert redis_server.call("PING") == b"PONG"
    assert redis_server.properties["redisHost"] == f"{redis_server.host}:{redis_server.port}"
    assert redis_server.properties["redisUsername"] == redis_server.username
    anonymous = RedisAddress(hosts=redis_server.address.hosts)
    with anonymous.connect(redis_server.host, redis_server.port) as connection, pytest.raises(ReplyError):
        connection.call("PING")


def test_tls_serves_clients_with_a_certificate_only(redis_tls: RedisBackend) -> None:
    assert redis_tls.call("PING") == b"PONG"
    assert redis_tls.properties["clientCert"].startswith("-----BEGIN CERTIFICATE-----")
    assert redis_tls.tls is not None
    bare = RedisAddress(hosts=redis_tls.address.hosts, tls=TlsFiles(redis_tls.tls.ca, None, None))
    with pytest.raises((ssl.SSLError, ConnectionError)), bare.connect(redis_tls.host, redis_tls.port) as connection:
        connection.call("PING")


def test_json_documents_are_found_by_search(redis_stack: RedisBackend) -> None:
    with redis_stack.connect() as connection:
        connection.call("JSON.SET", "backends:1", "$", '{"age": 7}')
        connection.call(
            *("FT.CREATE", "backends", "ON", "JSON", "PREFIX", 1, "backends:"),
            *("SCHEMA", "$.age", "AS", "age", "NUMERIC"),
        )
        wait_until(lambda: connection.call("FT.SEARCH", "backends", "@age:[5 9]", "NOCONTENT") == [1, b"backends:1"])
        connection.call("FT.DROPINDEX", "backends", "DD")


def test_json_without_search_can_be_had(own_redis: OwnRedis) -> None:
    server = own_redis.server(RedisOptions(modules=("json",)))
    server.call("JSON.SET", "key", "$", "[1]")
    with pytest.raises(ReplyError, match="unknown command"):
        server.call("FT._LIST")


def test_the_cluster_has_three_primaries_with_a_replica_each(redis_cluster: RedisBackend) -> None:
    with redis_cluster.connect() as connection:
        shards = connection.call("CLUSTER", "SLOTS")
        assert connection.info("CLUSTER", "INFO")["cluster_state"] == "ok"
    assert sorted(len(shard) for shard in shards) == [4, 4, 4]
    assert sum(last - first + 1 for first, last, *_ in shards) == 16384
    assert redis_cluster.properties["redisType"] == "cluster"
    if isinstance(redis_cluster, RedisCluster):
        assert redis_cluster.primary_of("key").call("SET", "key", "value") == b"OK"


def test_the_sentinels_agree_on_a_primary(redis_sentinel: RedisBackend) -> None:
    assert redis_sentinel.call("SENTINEL", "CKQUORUM", redis_sentinel.address.master or "").startswith(b"OK 3")
    assert redis_sentinel.properties["failover"] == "true"
    if isinstance(redis_sentinel, RedisSentinel):
        assert redis_sentinel.primary().call("ROLE")[0] == b"master"


@pytest.mark.parametrize("mode", ["node", "cluster", "sentinel"])
@pytest.mark.parametrize("tls", [None, TlsFiles(Path("/a b/ca"), Path("/cert"), Path("/key"))])
def test_an_address_survives_the_way_through_a_url(mode: Mode, tls: TlsFiles | None) -> None:
    address = RedisAddress(
        hosts=(("127.0.0.1", 7000), ("localhost", 7001)),
        mode=mode,
        username="us:er",
        password="p@ss/w?rd",
        master="lapel" if mode == "sentinel" else None,
        sentinel_password="s&cret" if mode == "sentinel" else None,
        tls=tls,
    )
    assert RedisAddress.parse(address.url, mode) == address
    assert "p@ss" not in repr(address)


# the run


def started_by(run: subprocess.Popen[str]) -> RedisAddress:
    assert run.stdout is not None
    _, _, url = run.stdout.readline().strip().partition("=")
    return RedisAddress.parse(url.strip("'"), "node")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_survives_a_run_that_is_ended(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.backends", "up", "--only", "redis"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as run:
        try:
            address = started_by(run)
            (host, port) = address.hosts[0]
            with address.connect(host, port) as connection:
                assert connection.call("PING") == b"PONG"
            run.send_signal(number)
            run.wait(20)
        finally:
            run.kill()
    wait_until(lambda: nobody_listens(port))
    wait_until(lambda: not list(tmp_path.iterdir()))


def test_a_command_is_run_with_the_addresses_and_its_exit_code_returned() -> None:
    program = (
        "import json, os, sys; known = json.load(open(os.environ['BACKENDS_FILE']))['redis'];"
        "assert known['url'] == os.environ['LAPEL_TEST_REDIS']; print(json.dumps(known)); sys.exit(7)"
    )
    command = [sys.executable, "-m", "tests.backends", "run", "--only", "redis", "--", sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 7, done.stderr
    known = json.loads(done.stdout)
    assert (known["nature"], known["origin"]) == ("real", "own process")
    assert known["properties"]["redisPassword"]


# what is fetched


def test_what_is_fetched_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    def half(made: Path) -> None:
        (made / "first").touch()
        raise Unavailable("cut off")

    def whole(made: Path) -> None:
        (made / "first").touch()
        (made / "second").touch()

    place = tmp_path / "cache" / "thing"
    with pytest.raises(Unavailable):
        provision.make_once(place, half)
    assert not place.exists()
    provision.make_once(place, whole)
    assert len(list(place.iterdir())) == 2
    provision.make_once(place, half)
    assert [path.name for path in place.parent.iterdir()] == ["thing"]


def test_who_is_not_root_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: "apt-get" if program == "apt-get" else None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Unavailable, match=r"sudo apt-get install --no-install-recommends one two$"):
        provision.install_packages({"b": "two", "a": "one"})


def test_packages_never_start_their_services(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    seen: list[tuple[str, bool]] = []

    def run(*command: str | Path, what: str, environment: dict[str, str] | None = None) -> str:
        seen.append((what, policy.exists() and "exit 101" in policy.read_text()))
        return ""

    monkeypatch.setattr(provision, "_POLICY", policy)
    monkeypatch.setattr(provision, "run", run)
    monkeypatch.setattr(shutil, "which", lambda program: "apt-get" if program == "apt-get" else None)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    provision._refresh_package_lists.cache_clear()
    provision.install_packages({"a": "one"})
    provision._refresh_package_lists.cache_clear()
    assert seen == [("apt-get update", True), ("apt-get install", True)]
    assert not policy.exists()


def test_ports_leave_room_for_the_cluster_bus_and_are_not_handed_out_twice() -> None:
    chosen = [ports.free_port(offsets=(0, redis_node.BUS)) for _ in range(20)]
    assert len(set(chosen)) == 20
    assert max(chosen) + redis_node.BUS <= 65535


def test_every_technology_has_a_name_for_the_environment_and_a_known_nature() -> None:
    for technology in launcher.technologies().values():
        assert technology.variable.startswith("LAPEL_TEST_")
        assert technology.nature in ("real", "emulator", "mock", "stub")
