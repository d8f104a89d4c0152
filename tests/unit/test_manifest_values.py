"""Values of a manifest: how references and tags in them resolve, and which ones code may give."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest

from lapel.descriptor import Kind
from lapel.errors import InvalidArgumentError, ManifestError
from lapel.manifest import Manifest, MetadataItem, SecretRef, expand_tags, resolve_env
from lapel.settings import UNRESOLVED, Secret

# References


def resolved(*items: MetadataItem, **options: Any) -> tuple[list[object], list[tuple[str, bool]]]:
    manifest = Manifest(name="c", kind=Kind.STATE, driver="x", metadata=items)
    options.setdefault("environ", {})
    properties, problems = manifest.resolve(options.pop("secrets", {}), **options)
    return [item.value for item in properties], [(problem.message, problem.warning) for problem in problems]


REF = SecretRef("db", "pw")


def test_a_secret_replaces_the_value_next_to_it() -> None:
    item = MetadataItem("p", "written", REF)
    assert resolved(item, secrets={REF: "found"}) == ([Secret("found")], [])
    assert resolved(item, secrets={REF: Secret("found")}) == ([Secret("found")], [])
    assert resolved(item, secrets={REF: ""}) == (["written"], [])
    assert resolved(item, secrets={}) == (["written"], [])


def test_a_secret_that_is_not_there_is_a_problem_when_there_is_no_value() -> None:
    values, problems = resolved(MetadataItem("p", None, REF))
    assert values == [None]
    assert problems == [("needs the secret 'db' with key 'pw', which the secret store does not have", False)]


def test_before_secrets_are_read_their_fields_are_unresolved() -> None:
    assert resolved(MetadataItem("p", None, REF), MetadataItem("q", "v"), secrets=None) == ([UNRESOLVED, "v"], [])


def test_the_environment_counts_only_without_a_value_and_before_the_secret() -> None:
    environ = {"MY_VAR": "from env"}
    both = MetadataItem("p", None, REF, "MY_VAR")
    assert resolved(both, secrets={REF: "found"}, environ=environ) == ([Secret("from env")], [])
    assert Manifest(name="c", kind=Kind.STATE, driver="x", metadata=(both,)).secret_refs() == ()
    assert resolved(MetadataItem("p", "written", env_ref="MY_VAR"), environ=environ) == (["written"], [])
    assert resolved(MetadataItem("p", env_ref="MY_VAR")) == (
        [None],
        [("reads the environment variable 'MY_VAR', which is not set", True)],
    )
    assert resolved(MetadataItem("p", env_ref="dapr_x"), environ={"dapr_x": "y"}) == (
        [None],
        [("may not read the environment variable 'dapr_x'", False)],
    )


def test_denied_environment_names_are_refused() -> None:
    for name in ("APP_API_TOKEN", "app_api_token", "DAPR_HTTP_PORT", "Dapr_x", "A B", ""):
        with pytest.raises(InvalidArgumentError, match="may not read"):
            resolve_env(name, {name: "x"})
    assert resolve_env("A", {"A": "x"}) == "x"
    assert resolve_env("B", {"A": "x"}) is None
    assert resolve_env("A", {"A": "x", "DAPR_ENV_KEYS": "a B"}) == "x"
    with pytest.raises(InvalidArgumentError, match="DAPR_ENV_KEYS"):
        resolve_env("C", {"C": "x", "DAPR_ENV_KEYS": "a B"})


def test_template_tags_are_replaced_in_written_values_only() -> None:
    values, problems = resolved(
        MetadataItem("a", "{appID}-{namespace}-{podName}-{other}"),
        MetadataItem("b", None, REF),
        secrets={REF: "{appID}"},
        app_id="app",
        namespace="ns",
        environ={"POD_NAME": "pod"},
    )
    assert (values, problems) == (["app-ns.app-pod-{other}", Secret("{appID}")], [])
    first, second = expand_tags("{uuid} {uuid}").split()
    assert uuid.UUID(first) != uuid.UUID(second)


@pytest.mark.parametrize("tag", ["{appID}", "{namespace}", "{podName}"])
def test_a_tag_without_content_is_a_problem(tag: str) -> None:
    values, problems = resolved(MetadataItem("a", f"x{tag}"))
    assert values == [None]
    assert tag in problems[0][0]


# Manifests made in code


def test_a_manifest_made_in_code_takes_typed_values() -> None:
    manifest = Manifest.of(
        "c",
        "State.SQLite",
        {
            "a": "x",
            "b": True,
            "c": 3,
            "d": timedelta(seconds=90),
            "e": Secret("s"),
            "f": REF,
            "g": None,
            "h": ["x", "y"],
        },
    )
    assert manifest.type == "state.sqlite"
    assert [item.value for item in manifest.metadata] == ["x", "true", "3", "1m30s", Secret("s"), None, None, "x,y"]
    assert manifest.secret_refs() == (REF,)


@pytest.mark.parametrize(("name", "type"), [("a/b", "state.x"), ("", "state.x"), ("a", "stat.x"), ("a", "state")])
def test_a_manifest_made_in_code_is_checked(name: str, type: str) -> None:
    with pytest.raises(ManifestError):
        Manifest.of(name, type)


def test_a_manifest_shows_no_value() -> None:
    manifest = Manifest.of("c", "state.x", {"password": "kanarie"})
    properties, _ = manifest.resolve({})
    assert "kanarie" not in repr(manifest) + repr(properties)
