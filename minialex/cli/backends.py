"""``minialex backends``."""

from __future__ import annotations


def backends() -> None:
    """List the installed backends with their devices, or the reason why they cannot be used here."""
    from minialex.backend import registry
    from minialex.errors import MinialexError
    from minialex.screen.sheet import Sheet
    from minialex.screen.terminal import console

    rows = []
    for name, point in registry.installed().items():
        try:
            devices = ", ".join(registry.load(name).devices) + (" (default)" if name == registry.default_name() else "")
        except MinialexError as error:
            devices = "cannot be used: " + str(error).removeprefix(f"backend '{name}' cannot be used: ")
        rows.append((name, devices, point.value))
    console().print(Sheet("", ("backend", "devices", "class"), rows, "l").rich())
