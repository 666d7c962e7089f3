"""Loads the kit's plugin when its tests are run by path."""

pytest_plugins = ["minialex.conformance.plugin"]
