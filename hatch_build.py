"""Puts the executed notebooks, and the site if it is built, into the wheel; an editable install finds them here."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class FilesHook(BuildHookInterface):
    """Notebooks, solutions and a trained network -> ``notebooks/files``; the built site -> ``minialex/site/built``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel is built; `version` is ``"standard"`` or ``"editable"``."""
        if version == "standard":
            notebooks, inside = Path(self.root) / "notebooks", "minialex/course/notebooks/files"
            for path in sorted([*notebooks.glob("[0-9][0-9]_*.ipynb"), *notebooks.glob("solutions/[0-9][0-9]_*.py")]):
                build_data["force_include"][str(path)] = f"{inside}/{path.relative_to(notebooks)}"
            trained = Path(self.root) / "docs" / "assets" / "live" / "classify.safetensors"
            build_data["force_include"][str(trained)] = f"{inside}/{trained.name}"
            site = Path(self.root) / "site"
            if (site / "index.html").is_file():
                build_data["force_include"][str(site)] = "minialex/site/built"
