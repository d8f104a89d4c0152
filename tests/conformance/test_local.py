"""The drivers that work on files and environment variables of this machine."""

from __future__ import annotations

from pathlib import Path

from lapel.testing import ConfigurationSuite, SecretStoreSuite

COMPONENTS = Path(__file__).parent / "components"


class TestConfiguration(ConfigurationSuite):
    component = COMPONENTS / "configuration.local.file.yaml"


class TestEnvSecrets(SecretStoreSuite):
    component = COMPONENTS / "secretstores.local.env.yaml"


class TestPrefixedEnvSecrets(SecretStoreSuite):
    component = COMPONENTS / "secretstores.local.env-prefixed.yaml"


class TestFileSecrets(SecretStoreSuite):
    component = COMPONENTS / "secretstores.local.file.yaml"


class TestMultiValuedFileSecrets(SecretStoreSuite):
    component = COMPONENTS / "secretstores.local.file-multi-valued.yaml"
