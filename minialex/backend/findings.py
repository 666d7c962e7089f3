"""What is known about a machine: findings of ``minialex doctor``, and of backends with their own devices.

Such a backend has a classmethod ``diagnose(asked)`` that returns a `Diagnosis`. It is called on the class before any
instance exists, even on machines that lack what the backend needs: there it must not fail, but say what is missing.
`asked` is true if the user wants this backend; otherwise it leaves out what only its users need to know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

Verdict = Literal["ok", "note", "problem"]
"""``"note"``: it works, but a user may want to know or change something; ``"problem"``: it does not work."""


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        area: who needs it: everybody (``"cpu"``), users of a backend (its name), users of two devices (``"pair"``)
        topic: what was checked
        verdict: the result
        found: what was found, or what is wrong, in one line
        mend: how to fix it: a command to paste, or one sentence; empty if there is nothing to do
    """

    area: str
    topic: str
    verdict: Verdict
    found: str
    mend: str = ""


def works(checks: Iterable[Check], areas: Iterable[str]) -> bool:
    """Whether there is no problem in any of the areas."""
    wanted = set(areas)
    return not any(check.verdict == "problem" for check in checks if check.area in wanted)


@dataclass(frozen=True)
class Device:
    """A device as its driver describes it.

    Attributes:
        index: its number; ``"{backend}:{index}"`` is its name
        name: its maker's name for it
        memory: bytes
        capability: the generation of its hardware, in its maker's numbering
        multiprocessors: its number of processors
    """

    index: int
    name: str
    memory: int
    capability: tuple[int, int]
    multiprocessors: int


@dataclass(frozen=True)
class Measured:
    """The rates that a device reaches.

    Attributes:
        matrix: floating-point operations per second in a matrix product, by precision; precisions it lacks are absent
        copy: bytes per second through its memory, read and written together
        from_host: bytes per second from the host
        source: how these were measured
    """

    matrix: Mapping[str, float]
    copy: float
    from_host: float
    source: str


@dataclass(frozen=True)
class Copy:
    """A copy from one device to another.

    Attributes:
        source: number of the device that is read
        target: number of the one that is written
        direct: whether the target may read the source's memory (peer access)
        equal: whether every byte arrived, for all sizes tried
        rate: bytes per second for the largest size
        error: what the driver said, if it refused
        mend: what to do if bytes do not arrive
    """

    source: int
    target: int
    direct: bool
    equal: bool
    rate: float
    error: str = ""
    mend: str = ""


class Diagnosis(Protocol):
    """What a backend knows about its devices and what they need; `checks` and `devices` are instant."""

    @property
    def checks(self) -> Sequence[Check]:
        """Findings, in the area named after the backend."""
        ...

    @property
    def devices(self) -> Sequence[Device]:
        """The available devices, by number."""
        ...

    @property
    def measurable(self) -> bool:
        """Whether the other methods may be called."""
        ...

    def measure(self, device: int) -> Measured:
        """Measure the rates that a device reaches; takes some seconds.

        Raises:
            ResourceError: If it has too little memory free, or fails.
        """
        ...

    def copies(self, first: int, second: int) -> list[Copy]:
        """Copy bytes between two devices in both directions, in every way available, and compare them."""
        ...

    def disturbed(self, devices: Sequence[int], seed: int) -> AbstractContextManager[None]:
        """A context that keeps the devices busy at random moments, for random times."""
        ...
