"""Wrong secret stores: each is killed by the row it names, while the right one passes that row."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import islice

import pytest

from lapel.errors import NotFoundError
from lapel.secretstores import BulkSecretsRequest, GetSecretRequest
from lapel.testing import Mutant, Pins, SecretStoreSuite, assert_killed, judge, row
from lapel.testing.report import ComponentReport
from lapel.testing.secretstores import base
from lapel_contrib.local.env_secrets import EnvSecretStore
from lapel_contrib.local.settings import EnvSecretsSettings

Found = Mapping[str, str]


class AnswersWithNothing(EnvSecretStore):
    """What the reference does for a missing variable."""

    async def get(self, request: GetSecretRequest) -> Found:
        try:
            return await super().get(request)
        except NotFoundError:
            return {request.name: ""}


class TakesEmptyForMissing(EnvSecretStore):
    async def get(self, request: GetSecretRequest) -> Found:
        found = await super().get(request)
        if not found[request.name]:
            raise NotFoundError("empty")
        return found


class Strips(EnvSecretStore):
    async def get(self, request: GetSecretRequest) -> Found:
        return {name: value.strip() for name, value in (await super().get(request)).items()}


class FoldsNames(EnvSecretStore):
    async def get(self, request: GetSecretRequest) -> Found:
        for variable, value in os.environ.items():
            if variable.lower() == request.name.lower():
                return {request.name: value}
        return await super().get(request)


class StopsAfterAPage(EnvSecretStore):
    async def bulk_get(self, request: BulkSecretsRequest) -> Mapping[str, Found]:
        return dict(islice((await super().bulk_get(request)).items(), 100))


class ReadsOnceOnly(EnvSecretStore):
    async def open(self) -> None:
        self._snapshot = dict(os.environ)

    async def get(self, request: GetSecretRequest) -> Found:
        if request.name not in self._snapshot:
            raise NotFoundError("was not there")
        return {request.name: self._snapshot[request.name]}


class Logs(EnvSecretStore):
    async def get(self, request: GetSecretRequest) -> Found:
        found = await super().get(request)
        self.context.logger.debug("read %s", found)
        return found


class ShowsAllInBulk(EnvSecretStore):
    async def bulk_get(self, request: BulkSecretsRequest) -> Mapping[str, Found]:
        return {name: {name: value} for name, value in os.environ.items()}


class NamesTheFieldValue(EnvSecretStore):
    async def get(self, request: GetSecretRequest) -> Found:
        return {"value": (await super().get(request))[request.name]}


# The module's fixture runs many suites, and locks expire in real time.
pytestmark = pytest.mark.timeout(300)

MUTANTS = [
    Mutant(AnswersWithNothing, "stricter-074"),
    Mutant(TakesEmptyForMissing, "stricter-075"),
    Mutant(NamesTheFieldValue, "stricter-076"),
    Mutant(Strips, "stricter-077"),
    Mutant(FoldsNames, "stricter-077"),
    Mutant(StopsAfterAPage, "stricter-079"),
    Mutant(ReadsOnceOnly, "stricter-080"),
    Mutant(Logs, "stricter-081"),
    Mutant(ShowsAllInBulk, "stricter-082"),
]


@pytest.fixture(scope="module")
def outcomes() -> Mapping[str, ComponentReport]:
    pins = Pins(
        options={
            "writer": "lapel.testing.secretstores.writers:EnvironmentWriter",
            "hidden": "APP_API_TOKEN, DAPR_API_TOKEN",
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in base.SECRETS.items():
            patch.setenv(name, value)
        patch.setattr(base, "PATIENCE", 0.5)
        return judge(SecretStoreSuite, EnvSecretStore, EnvSecretsSettings.parse({}), MUTANTS, pins=pins)


@row("stricter-140")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.id}-{mutant.row}")
def test_a_wrong_secret_store_is_caught(outcomes: Mapping[str, ComponentReport], mutant: Mutant) -> None:
    assert_killed(outcomes, mutant)
