"""`lapel crypto`: what it reads and writes, and what it leaves behind when it fails."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lapel.cli.signals import ended_by_signals

LAPEL = [sys.executable, "-m", "lapel.cli", "crypto"]
KEY = base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")
COMPONENT = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: vault}
spec:
  type: crypto.dapr.jwks
  version: v1
  metadata: [{name: jwks, value: keys.json}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: not-opened}
spec:
  type: state.sqlite
  version: v1
  metadata: [{name: connectionString, value: /no/such/folder/state.db}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    keys = [{"kty": "oct", "kid": name, "k": KEY, "alg": "A256KW"} for name in ("main", "other")]
    (tmp_path / "keys.json").touch(mode=0o600)
    (tmp_path / "keys.json").write_text(json.dumps({"keys": keys}))
    (tmp_path / "vault.yaml").write_text(COMPONENT)
    return tmp_path


def run(folder: Path, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    result = subprocess.run([*LAPEL, *arguments], cwd=folder, input=stdin, capture_output=True, check=False, timeout=50)
    assert b"Traceback" not in result.stderr
    return result


def encrypt(folder: Path, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return run(folder, "encrypt", *arguments, "--component", "vault.yaml", "--key", "main", stdin=stdin)


def decrypt(folder: Path, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return run(folder, "decrypt", *arguments, "--component", "vault.yaml", stdin=stdin)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"keys.json", "vault.yaml"}


@pytest.mark.parametrize("cipher", ["AES-GCM", "chacha20-poly1305"])
@pytest.mark.parametrize("size", [0, 3_000_001])
def test_a_file_comes_back_as_it_was(folder: Path, cipher: str, size: int) -> None:
    plain = os.urandom(size)
    (folder / "plain").write_bytes(plain)
    result = encrypt(folder, "plain", "-o", "sealed", "--cipher", cipher)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    sealed = (folder / "sealed").read_bytes()
    assert sealed.startswith(b"dapr.io/enc/v1\n")
    assert json.loads(sealed.split(b"\n")[1])["cph"] == (1 if cipher == "AES-GCM" else 2)
    assert decrypt(folder, "sealed", "-o", "again").returncode == 0
    assert (folder / "again").read_bytes() == plain
    assert files(folder) == {"plain", "sealed", "again"}


def test_pipes_work_in_both_directions(folder: Path) -> None:
    plain = os.urandom(10_000_000)
    sealed = encrypt(folder, "-", stdin=plain)
    assert (sealed.returncode, sealed.stderr) == (0, b"")
    opened = decrypt(folder, "-", "-o", "-", stdin=sealed.stdout)
    assert (opened.returncode, opened.stderr) == (0, b"")
    assert opened.stdout == plain
    assert files(folder) == set()


def test_another_key_can_be_named_to_decrypt(folder: Path) -> None:
    sealed = encrypt(folder, "-", stdin=b"text").stdout
    assert decrypt(folder, "-", "--key", "other", stdin=sealed).stdout == b"text"
    result = decrypt(folder, "-", "--key", "third", stdin=sealed)
    assert (result.returncode, result.stdout) == (1, b"")
    assert b"error: component 'vault' (crypto.dapr.jwks) unwrap_key: key 'third' is not in the key set" in result.stderr


@pytest.mark.parametrize("damage", ["at the end", "cut", "header", "no document"])
def test_a_bad_document_writes_nothing(folder: Path, damage: str) -> None:
    sealed = encrypt(folder, "-", stdin=os.urandom(200_000)).stdout
    bad = {
        "at the end": sealed[:-1] + bytes([sealed[-1] ^ 1]),
        "cut": sealed[:-70_000],
        "header": sealed.replace(b'"kw":1', b'"kw":2'),
        "no document": b"hello",
    }[damage]
    (folder / "bad").write_bytes(bad)
    (folder / "kept").write_text("precious")
    for arguments in (["bad", "-o", "kept"], ["bad", "-o", "new"], ["bad"]):
        result = decrypt(folder, *arguments)
        assert (result.returncode, result.stdout) == (1, b"")
        assert result.stderr.splitlines()[-1].startswith(b"error: ")
    assert (folder / "kept").read_text() == "precious"
    assert files(folder) == {"bad", "kept"}


def test_a_replaced_file_keeps_its_mode_and_its_link_and_a_new_one_is_private(folder: Path) -> None:
    (folder / "target").touch()
    (folder / "target").chmod(0o640)
    (folder / "link").symlink_to("target")
    assert encrypt(folder, "-", "-o", "link", stdin=b"x").returncode == 0
    assert (folder / "link").is_symlink()
    assert (folder / "target").stat().st_mode & 0o777 == 0o640
    assert encrypt(folder, "-", "-o", "new", stdin=b"x").returncode == 0
    assert (folder / "new").stat().st_mode & 0o777 == 0o600


def test_a_file_can_be_replaced_by_its_own_encryption(folder: Path) -> None:
    (folder / "file").write_bytes(b"text")
    assert encrypt(folder, "file", "-o", "file").returncode == 0
    assert decrypt(folder, "file", "-o", "file").returncode == 0
    assert (folder / "file").read_bytes() == b"text"


def test_a_device_is_written_and_not_replaced(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with subprocess.Popen(["cat", "pipe"], cwd=folder, stdout=subprocess.PIPE) as reader:
        assert encrypt(folder, "-", "-o", "pipe", stdin=b"x").returncode == 0
        assert reader.communicate(timeout=20)[0].startswith(b"dapr.io/enc/v1\n")
    assert (folder / "pipe").is_fifo()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing"], b"No such file"),
        (["plain", "-o", "no/folder/here"], b"cannot write to the folder"),
        (["plain", "-o", "."], b"cannot write to"),
        (["plain", "-o", "out", "--algorithm", "ROT13"], b"ROT13"),
        (["plain", "-o", "out", "--algorithm", "RSA-OAEP-256"], b"needs a key of kind RSA"),
    ],
)
def test_a_failure_exits_with_1_and_leaves_nothing(folder: Path, arguments: list[str], says: bytes) -> None:
    (folder / "plain").write_bytes(b"x")
    result = encrypt(folder, *arguments)
    assert (result.returncode, result.stdout) == (1, b"")
    assert result.stderr.startswith(b"error: ")
    assert says in result.stderr
    assert files(folder) == {"plain"}


@pytest.mark.parametrize(
    "arguments", [["encrypt", "-"], ["encrypt"], ["encrypt", "-", "--cipher", "DES"], ["melt"], []]
)
def test_a_wrong_command_line_exits_with_2(folder: Path, arguments: list[str]) -> None:
    more = ["--component", "vault.yaml", "--key", "main"] if "--cipher" in arguments else []
    assert run(folder, *arguments, *more).returncode == 2


def test_component_files_must_have_one_crypto_component_that_opens(folder: Path) -> None:
    text = COMPONENT.partition("---")[0]
    (folder / "vault.yaml").write_text(text + "---" + text.replace("vault", "safe"))
    result = encrypt(folder, "-", stdin=b"x")
    assert (result.returncode, result.stdout) == (1, b"")
    assert b"has 2 crypto components (vault, safe)" in result.stderr
    (folder / "vault.yaml").write_text("kind: Nothing")
    assert b"has 0 crypto components" in encrypt(folder, "-", stdin=b"x").stderr
    (folder / "vault.yaml").write_text(text.replace("keys.json", "lost.json"))
    result = encrypt(folder, "-", "-o", "out", stdin=b"x")
    assert result.returncode == 1
    assert result.stderr.startswith(b"error: component 'vault' (crypto.dapr.jwks) open: the field 'jwks'")
    assert files(folder) == set()


def test_keys_can_come_from_a_secret_store_beside_the_component(folder: Path) -> None:
    stores = """---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: env}
spec: {type: secretstores.local.env, version: v1, metadata: []}
"""
    text = COMPONENT.partition("---")[0].replace("value: keys.json", "secretKeyRef: {name: CLI_KEYS, key: CLI_KEYS}")
    (folder / "vault.yaml").write_text(text + "auth: {secretStore: env}\n" + stores)
    arguments = [*LAPEL, "encrypt", "-", "--component", "vault.yaml", "--key", "main"]
    environment = {**os.environ, "CLI_KEYS": (folder / "keys.json").read_text()}
    result = subprocess.run(
        arguments, cwd=folder, input=b"x", capture_output=True, check=False, env=environment, timeout=50
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.startswith(b"dapr.io/enc/v1\n")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak that Linux keeps of a process")
def test_memory_does_not_grow_with_the_length(folder: Path) -> None:
    # Not `getrusage`, whose peak counts what the parent of a new process had.
    program = (
        "import re, sys, lapel.cli\n"
        "try: lapel.cli.main(sys.argv[1:])\n"
        "finally: print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], file=sys.stderr)"
    )
    peaks = []
    for size in (1, 96):
        with open(folder / "plain", "wb") as file:
            file.truncate(size * 1_048_576)
        peak = 0
        for arguments in (["encrypt", "plain", "-o", "sealed", "--key", "main"], ["decrypt", "sealed", "-o", "again"]):
            command = [sys.executable, "-c", program, "crypto", *arguments, "--component", "vault.yaml"]
            result = subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=50)
            peak = max(peak, int(result.stderr))
        peaks.append(peak)
    assert (folder / "again").stat().st_size == 96 * 1_048_576
    assert peaks[1] - peaks[0] < 16 * 1024


def wait_for(condition: object, seconds: float = 30.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_interrupted_command_ends_although_its_pipe_is_silent_and_leaves_nothing(folder: Path) -> None:
    command = [*LAPEL, "encrypt", "-", "-o", "out", "--component", "vault.yaml", "--key", "main"]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(bytes(3_000_000))
        process.stdin.flush()
        wait_for(lambda: any(path.stat().st_size > 1_000_000 for path in folder.glob(".out.*.tmp")))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) != 0
    assert files(folder) == set()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_command_that_is_told_to_end_leaves_no_plaintext(folder: Path, number: signal.Signals, code: int) -> None:
    (folder / "kept").write_text("precious")
    sealed = encrypt(folder, "-", stdin=bytes(3_000_000)).stdout
    command = [*LAPEL, "decrypt", "-", "-o", "kept", "--component", "vault.yaml"]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(sealed[:-1])
        process.stdin.flush()
        wait_for(lambda: any(path.stat().st_size > 1_000_000 for path in folder.glob(".kept.*.tmp")))
        process.send_signal(number)
        assert process.wait(timeout=30) == code
        assert b"Traceback" not in process.stderr.read()
    assert files(folder) == {"kept"}
    assert (folder / "kept").read_text() == "precious"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_only_the_first_signal_ends_a_block_and_the_handlers_are_put_back() -> None:
    cleaned = False
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
    with pytest.raises(SystemExit) as ended, ended_by_signals():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGHUP)
            cleaned = True
    assert cleaned
    assert ended.value.code == 143
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)] == before
    with pytest.raises(KeyboardInterrupt), ended_by_signals():
        signal.raise_signal(signal.SIGINT)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_signals():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_a_bar_is_drawn_on_a_terminal_and_data_is_not(folder: Path) -> None:
    (folder / "plain").write_bytes(bytes(1_000_000))
    ours, theirs = os.openpty()
    try:
        command = [*LAPEL, "encrypt", "plain", "--component", "vault.yaml", "--key", "main"]
        environment = {**os.environ, "TERM": "xterm"}
        done = subprocess.run(
            [*command, "-o", "out"], cwd=folder, stderr=theirs, env=environment, check=False, timeout=50
        )
        assert done.returncode == 0
        assert b"encrypting" in os.read(ours, 100_000)
        refused = subprocess.run(command, cwd=folder, stdout=theirs, stderr=subprocess.PIPE, check=False, timeout=50)
        assert refused.returncode == 2
        assert b"not for a terminal" in refused.stderr
    finally:
        os.close(ours)
        os.close(theirs)
