"""Operations: which there are, and what a call leaves alone."""

from __future__ import annotations

from copy import deepcopy

import pytest

from ...bindings import OutputBinding
from ...descriptor import Capability
from ...errors import InvalidArgumentError, LapelError, NotFoundError, UnsupportedError
from ..marks import contract, needs, row
from ..subject import Subject
from .base import BindingBase

__all__ = ["CallTests"]


class CallTests(BindingBase):
    """What holds for every operation."""

    @row("BD-02")
    @needs(Capability.OUTPUT)
    async def test_every_operation_of_the_catalogue_is_offered_in_any_case(
        self, subject: Subject, output: OutputBinding
    ) -> None:
        assert output.operations == subject.descriptor.operations
        assert output.operations
        for operation in output.operations:
            for name in (operation, operation.upper(), operation.swapcase()):
                try:
                    await (await output.invoke(name, metadata={})).aclose()
                except UnsupportedError as exc:
                    pytest.fail(f"{name} is not offered: {exc}")
                except LapelError:
                    continue

    @row("stricter-062")
    @needs(Capability.OUTPUT)
    @pytest.mark.parametrize("name", ["no-such-operation", ""])
    async def test_an_operation_that_is_not_offered_is_refused_with_those_that_are(
        self, output: OutputBinding, name: str
    ) -> None:
        with pytest.raises(UnsupportedError) as caught:
            await output.invoke(name, b"{}")
        assert [operation for operation in output.operations if operation not in str(caught.value)] == []

    @row("stricter-062")
    @needs(Capability.OUTPUT)
    @contract
    async def test_missing_metadata_is_named(self, subject: Subject, output: OutputBinding) -> None:
        required = [name.strip() for name in str(self.option(subject, "required")).split(",") if name.strip()]
        if not required:
            pytest.skip("the component file names no `required` metadata")
        for operation in ("get", "delete"):
            for name in required:
                metadata = {other: "x" for other in required if other != name}
                with pytest.raises(InvalidArgumentError, match=name):
                    await output.invoke(operation, metadata=metadata)

    @row("stricter-072")
    @needs(Capability.OUTPUT)
    @contract
    async def test_metadata_and_data_of_the_caller_stay_as_they_were(
        self, subject: Subject, output: OutputBinding, base: str
    ) -> None:
        target = str(self.option(subject, "target"))
        name = base.strip("{}")
        metadata = {"x-unknown": "1", **({target: name} if target else {})}
        data = {"list": [1, 2], "text": "x"}
        before = deepcopy((metadata, data))
        for operation in ("create", "get", "delete"):
            if operation in output.operations:
                try:
                    await output.invoke(operation, data if operation == "create" else None, metadata=metadata)
                except NotFoundError:
                    continue
        assert (metadata, data) == before
