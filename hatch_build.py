"""Puts the executed notebooks, and the site if it is built, into the wheel; an editable install finds them here."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class FilesHook(BuildHookInterface):
    """``notebooks`` (and ``solutions``) -> ``minialex/course/notebooks/files``, ``site`` -> ``minialex/site/built``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel is built; `version` is ``"standard"`` or ``"editable"``."""
        if version == "standard":
            for path in sorted((Path(self.root) / "notebooks").glob("[0-9][0-9]_*.ipynb")):
                build_data["force_include"][str(path)] = f"minialex/course/notebooks/files/{path.name}"
            build_data["force_include"][str(Path(self.root) / "notebooks" / "solutions")] = (
                "minialex/course/notebooks/files/solutions"
            )
            site = Path(self.root) / "site"
            if (site / "index.html").is_file():
                build_data["force_include"][str(site)] = "minialex/site/built"
