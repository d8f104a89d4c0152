"""What a component file may say about state.acme.folder."""

from pathlib import Path

from lapel.settings import setting
from lapel.state import StateSettings

__all__ = ["FolderStateSettings"]


class FolderStateSettings(StateSettings):
    """Settings of state.acme.folder."""

    path: Path = setting("path", doc="The folder. It is made if it does not exist.", example="state")
