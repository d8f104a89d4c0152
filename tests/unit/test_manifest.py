"""Component files: what is read, and what is refused."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from lapel.descriptor import Kind
from lapel.errors import ManifestError
from lapel.manifest import (
    MAX_FILE_BYTES,
    Manifest,
    Manifests,
    MetadataItem,
    SecretRef,
    load_manifests,
    parse_manifests,
    read_manifests,
)

FULL = """\
# a comment
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: statestore
  namespace: prod
spec:
  type: State.SQLite
  version: V2
  initTimeout: 30s
  ignoreErrors: true
  metadata:
  - name: connectionString
    value: data.db
  - name: mode
    value: 0644
  - name: password
    secretKeyRef:
      name: db
      key: pw
  - {name: token, secretKeyRef: {name: tok}}
  - name: fromEnv
    envRef: MY_VAR
  - name: nothing
auth:
  secretstore: vault
scopes: [app1, app2]
"""


def component(name: str = "c", type: str = "state.sqlite", extra: str = "") -> str:
    return f"apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\nspec: {{type: {type}}}\n{extra}"


def with_spec(spec: str) -> str:
    return f"apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: c}}\nspec:\n  type: state.sqlite\n{spec}"


def errors(loaded: Manifests) -> list[str]:
    return [str(problem) for problem in loaded.errors]


def test_a_full_document_is_read_with_lines() -> None:
    loaded = parse_manifests(FULL, file="f.yaml")
    assert loaded.problems == []
    assert loaded.components == [
        Manifest(
            name="statestore",
            kind=Kind.STATE,
            driver="sqlite",
            version="v2",
            metadata=(
                MetadataItem("connectionString", "data.db", line=13),
                MetadataItem("mode", "0644", line=15),
                MetadataItem("password", secret_ref=SecretRef("db", "pw"), line=17),
                MetadataItem("token", secret_ref=SecretRef("tok", "tok"), line=21),
                MetadataItem("fromEnv", env_ref="MY_VAR", line=22),
                MetadataItem("nothing", line=24),
            ),
            init_timeout=timedelta(seconds=30),
            ignore_errors=True,
            secret_store="vault",
            scopes=("app1", "app2"),
            namespace="prod",
            file="f.yaml",
            line=2,
        )
    ]
    assert loaded.components[0].type == "state.sqlite"
    assert loaded.components[0].secret_refs() == (SecretRef("db", "pw"), SecretRef("tok", "tok"))


def test_what_is_left_out_has_defaults() -> None:
    manifest = parse_manifests(component()).components[0]
    assert (manifest.version, manifest.init_timeout, manifest.ignore_errors) == ("v1", timedelta(seconds=5), False)
    assert (manifest.secret_store, manifest.scopes, manifest.namespace, manifest.file) == (None, (), None, None)


@pytest.mark.parametrize(("written", "version"), [("", "v1"), ("v0", "v1"), ("V1", "v1"), ("v2", "v2")])
def test_first_versions_are_all_v1(written: str, version: str) -> None:
    assert parse_manifests(with_spec(f"  version: '{written}'")).components[0].version == version


def test_keys_match_in_any_case() -> None:
    text = "APIVERSION: dapr.io/v1alpha1\nKind: Component\nMetadata: {NAME: c}\nSpec: {TYPE: lock.redis}\nScopes: [a]"
    loaded = parse_manifests(text, app_id="a")
    assert [manifest.type for manifest in loaded.components] == ["lock.redis"]
    assert loaded.problems == []


def test_documents_of_other_kinds_are_handed_out_raw() -> None:
    other = "---\napiVersion: dapr.io/v2alpha1\nkind: Subscription\nspec: {topic: t, n: 010}\n"
    loaded = parse_manifests(component() + other + "---\nversion: '3'\nservices: {}\n", file="f.yaml")
    assert loaded.problems == []
    assert [(document.kind, document.api_version, document.line) for document in loaded.others] == [
        ("Subscription", "dapr.io/v2alpha1", 6),
        ("", "", 10),
    ]
    assert loaded.others[0].data["spec"] == {"topic": "t", "n": "010"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Component", "component", "kind 'Component'"),
        ("v1alpha1", "v1", "'dapr.io/v1'"),
        ("Component", "Componet", "mean"),
    ],
)
def test_a_document_that_is_almost_a_component_is_skipped_with_a_warning(old: str, new: str, words: str) -> None:
    loaded = parse_manifests(component().replace(old, new))
    assert loaded.components == []
    assert words in loaded.warnings[0].message


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (component(type="stat.sqlite"), 4, "did you mean 'state'?"),
        (component(type="sqlite"), 4, "does not begin with"),
        (component(type="state"), 4, "names no driver"),
        (component(type="state."), 4, "names no driver"),
        (component(type="''"), 4, "no type"),
        (component(name="''"), 3, "no name"),
        (component(name="a/b"), 3, "cannot be called 'a/b'"),
        (component(name="'50%'"), 3, "cannot be called"),
        (component(name="'..'"), 3, "cannot be called"),
        (component(name="[a]"), 3, "must be text"),
        (component(extra="scopes: a"), 5, "must be a list"),
        (component(extra="auth: vault"), 5, "must be a map"),
        (with_spec("  initTimeout: soon"), 6, "field 'spec.initTimeout': expected a duration"),
        (with_spec("  initTimeout: 0s"), 6, "more than 0"),
        (with_spec("  ignoreErrors: maybe"), 6, "expected true or false"),
        (with_spec("  metadata: {a: b}"), 6, "must be a list"),
        (with_spec("  metadata: [a]"), 6, "map with name and value"),
        (with_spec("  metadata:\n  - value: a"), 7, "no name"),
        (with_spec("  metadata:\n  - name: a\n    secretKeyRef: b"), 8, "map with name and key"),
        (with_spec("  metadata:\n  - name: a\n    secretKeyRef: {key: b}"), 8, "no name"),
        ("- a\n- b\n", 1, "not a mapping"),
        ("just text", 1, "not a mapping"),
        ("", None, "is empty"),
        ("# only a comment\n", None, "is empty"),
        ("---\n---\n", None, "is empty"),
        (component() + "---\na: [", 6, "not valid YAML"),
    ],
)
def test_every_mistake_names_file_and_line(text: str, line: int | None, words: str) -> None:
    loaded = parse_manifests(text, file="f.yaml")
    assert [(problem.file, problem.line) for problem in loaded.errors] == [("f.yaml", line)]
    assert words in errors(loaded)[0]


def test_unknown_keys_warn_with_a_suggestion() -> None:
    text = with_spec("  initTimout: 3s\n  scopes: [a]\n  metadata:\n  - {name: x, vlaue: kanarie}\n") + "auht: {}\n"
    loaded = parse_manifests(text)
    assert len(loaded.components) == 1
    assert [(problem.line, problem.warning) for problem in loaded.problems] == [
        (6, True),
        (7, True),
        (9, True),
        (10, True),
    ]
    texts = " ".join(problem.message for problem in loaded.problems)
    for words in (
        "did you mean 'initTimeout'?",
        "top of the document",
        "did you mean 'value'?",
        "did you mean 'auth'?",
    ):
        assert words in texts
    assert "kanarie" not in texts


def test_building_blocks_that_lapel_does_not_have_are_skipped_with_a_warning() -> None:
    loaded = parse_manifests(component(type="middleware.http.oauth2"))
    assert (loaded.components, loaded.errors, len(loaded.warnings)) == ([], [], 1)


def test_scopes_and_namespaces_leave_components_out_without_looking_at_them() -> None:
    broken = component("broken", "nonsense", "scopes: [other]")
    mine = component("mine", extra="scopes: [app]")
    loaded = parse_manifests(f"{broken}\n---\n{mine}\n---\n{component('all')}", app_id="app")
    assert ([manifest.name for manifest in loaded.components], loaded.problems) == (["mine", "all"], [])
    assert errors(parse_manifests(broken))
    assert parse_manifests(FULL, namespace="test").components == []
    assert parse_manifests(FULL, namespace="prod").components
    assert parse_manifests(component(), namespace="prod").components


def test_two_components_of_one_name_are_an_error_that_names_both_places() -> None:
    two = f"{component('same', extra='scopes: [a]')}\n---\n{component('same', 'pubsub.redis', 'scopes: [b]')}"
    loaded = parse_manifests(two, file="f.yaml")
    assert "f.yaml:7: component 'same': the name is taken already by the state.sqlite in f.yaml:1" in errors(loaded)[0]
    assert [manifest.kind for manifest in loaded.components] == [Kind.STATE]
    assert parse_manifests(two, app_id="b").errors == []


def test_values_may_be_maps_lists_and_anchors() -> None:
    text = with_spec(
        "  metadata:\n  - {name: a, value: {z: 1, b: [x, '1']}}\n  - {name: b, value: &v [1]}\n"
        "  - {name: c, value: *v}\n  - {name: d, value: ~}\n  - {name: e, value: ''}\n"
    )
    values = [item.value for item in parse_manifests(text).components[0].metadata]
    assert values == ['{"b":["x","1"],"z":1}', "[1]", "[1]", None, ""]


# Files and folders


def test_a_folder_is_read_by_name_without_what_is_not_yaml(tmp_path: Path) -> None:
    (tmp_path / "b.YML").write_text(component("second"))
    (tmp_path / "a.yaml").write_text(f"{component('first')}\n---\n{component('also')}")
    (tmp_path / "c.yaml.bak").write_text("[")
    (tmp_path / "sub.yaml").mkdir()
    (tmp_path / "sub.yaml" / "x.yaml").write_text(component("deep"))
    loaded = load_manifests(tmp_path)
    assert [manifest.name for manifest in loaded.components] == ["first", "also", "second"]
    assert loaded.problems == []
    assert loaded.components[2].file == str(tmp_path / "b.YML")
    assert loaded.components == load_manifests([tmp_path / "a.yaml", str(tmp_path / "b.YML")]).components


def test_duplicates_are_found_across_files_and_manifests_made_in_code(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(component("same"))
    loaded = load_manifests([Manifest.of("same", "lock.redis"), tmp_path])
    assert "taken already by the lock.redis" in errors(loaded)[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        (b"\xff\xfe", "is not UTF-8: byte 1"),
        (b"#" * (MAX_FILE_BYTES + 1), "is larger than"),
        (b"", "is empty"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "f.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ManifestError) as caught:
        read_manifests(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + component().encode())
    assert len(read_manifests(path).components) == 1


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f.yaml")
    assert "not a regular file" in errors(load_manifests(tmp_path))[0]


def test_an_empty_folder_is_a_warning(tmp_path: Path) -> None:
    loaded = read_manifests(tmp_path)
    assert "no file ending in .yaml or .yml" in loaded.warnings[0].message


def test_reading_raises_once_for_all_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(component(type="stat.x"))
    (tmp_path / "b.yaml").write_text(f"{component('ok')}\n---\na: [\n")
    with pytest.raises(ManifestError) as caught:
        read_manifests(tmp_path)
    assert str(caught.value).startswith("2 problems in component files:")
    assert [Path(problem.file or "").name for problem in caught.value.problems] == ["a.yaml", "b.yaml"]
    assert [manifest.name for manifest in load_manifests(tmp_path).components] == ["ok"]
