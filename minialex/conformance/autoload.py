"""Lets ``pytest --pyargs minialex.conformance --backend NAME`` know its options.

pytest reads the ``conftest.py`` of a package named by ``--pyargs`` only after its options. So this module is
announced to pytest (entry-point group ``pytest11``), and loads the plugin if the kit is what pytest was asked to run.
Everywhere else it adds nothing: ``--backend`` is a name that other projects use as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Load the plugin if one of the arguments is the kit."""
    arguments = early_config.known_args_namespace.file_or_dir
    if early_config.known_args_namespace.pyargs and any(a.startswith(KIT) for a in arguments):
        early_config.pluginmanager.import_plugin(f"{KIT}.plugin")


KIT = "minialex.conformance"
