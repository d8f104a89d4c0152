"""The driver proves what its descriptor declares."""

from pathlib import Path

from lapel.testing import StateSuite


class TestFolderState(StateSuite):
    """All promises of a state store, chosen by the flags of the component file."""

    component = Path(__file__).with_name("folder.yaml")
