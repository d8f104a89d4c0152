"""Ways to change what the secret stores of AWS read, for the suite."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any

import boto3

from lapel.testing.secretstores.writers import SecretWriter

__all__ = ["ParameterWriter", "SecretManagerWriter"]


@functools.cache
def _client(service: str, endpoint: str, region: str) -> Any:
    return boto3.client(
        service, endpoint_url=endpoint, region_name=region, aws_access_key_id="key", aws_secret_access_key="key"
    )


class SecretManagerWriter(SecretWriter):
    """Writes secrets: as a JSON object where the store reads those, else the only field as text."""

    @property
    def _secrets(self) -> Any:
        return _client("secretsmanager", self.settings.endpoint, self.settings.region)

    def put(self, secrets: Mapping[str, Mapping[str, str]]) -> Mapping[str, str]:
        versions = {}
        for name, fields in secrets.items():
            text = json.dumps(dict(fields)) if self.settings.multiple else fields[name]
            try:
                reply = self._secrets.put_secret_value(SecretId=name, SecretString=text)
            except self._secrets.exceptions.ResourceNotFoundException:
                reply = self._secrets.create_secret(Name=name, SecretString=text)
            versions[name] = reply["VersionId"]
        return versions

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            self._secrets.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)


class ParameterWriter(SecretWriter):
    """Writes parameters, encrypted."""

    @property
    def _parameters(self) -> Any:
        return _client("ssm", self.settings.endpoint, self.settings.region)

    def put(self, secrets: Mapping[str, Mapping[str, str]]) -> Mapping[str, str]:
        versions = {}
        for name, fields in secrets.items():
            (value,) = fields.values()
            where = self.settings.prefix + name
            reply = self._parameters.put_parameter(Name=where, Value=value, Type="SecureString", Overwrite=True)
            versions[name] = str(reply["Version"])
        return versions

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            self._parameters.delete_parameter(Name=self.settings.prefix + name)
