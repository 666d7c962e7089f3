"""What is found out about a machine: by ``minialex doctor``, and by backends that have devices of their own.

Such a backend has a classmethod ``diagnose(asked)`` that returns a `Diagnosis`. It is called on a class that was never
built, on machines that lack what the backend needs too: it must not fail there, but say what is missing. With `asked`
somebody wants to use the backend; else it keeps to itself what only its users need.
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
        topic: what was looked at
        verdict: how it is
        found: what it is, or what is wrong, one line
        mend: a command that can be pasted, or one sentence; empty where nothing need be done
    """

    area: str
    topic: str
    verdict: Verdict
    found: str
    mend: str = ""


def works(checks: Iterable[Check], areas: Iterable[str]) -> bool:
    """Whether nothing that the areas need is a problem."""
    wanted = set(areas)
    return not any(check.verdict == "problem" for check in checks if check.area in wanted)


@dataclass(frozen=True)
class Device:
    """A device as its driver describes it.

    Attributes:
        index: its number; ``"{backend}:{index}"`` is its name
        name: what its maker calls it
        memory: bytes
        capability: generation of its hardware, as its maker counts
        multiprocessors: how many processors it has
    """

    index: int
    name: str
    memory: int
    capability: tuple[int, int]
    multiprocessors: int


@dataclass(frozen=True)
class Measured:
    """What a device reaches.

    Attributes:
        matrix: floating-point operations a second of a matrix product, by precision; one that it lacks is absent
        copy: bytes a second through its memory, read and written together
        from_host: bytes a second from the host
        source: how that was measured
    """

    matrix: Mapping[str, float]
    copy: float
    from_host: float
    source: str


@dataclass(frozen=True)
class Copy:
    """One way between two devices.

    Attributes:
        source: number of the device that is read
        target: number of the one that is written
        direct: whether the target may read the source's memory (peer access)
        equal: whether every byte arrived, for all sizes tried
        rate: bytes a second of the largest
        error: what the driver said, if it refused
        mend: what to do about bytes that do not arrive
    """

    source: int
    target: int
    direct: bool
    equal: bool
    rate: float
    error: str = ""
    mend: str = ""


class Diagnosis(Protocol):
    """What a backend knows of its devices and of what they need; `checks` and `devices` take no time."""

    @property
    def checks(self) -> Sequence[Check]:
        """Findings, of the area of the backend's name."""
        ...

    @property
    def devices(self) -> Sequence[Device]:
        """The devices that there are, by their numbers."""
        ...

    @property
    def measurable(self) -> bool:
        """Whether the other methods may be called."""
        ...

    def measure(self, device: int) -> Measured:
        """What a device reaches; some seconds.

        Raises:
            ResourceError: If it has too little memory free, or fails.
        """
        ...

    def copies(self, first: int, second: int) -> list[Copy]:
        """Bytes copied both ways between two devices, in every way that there is, and compared."""
        ...

    def disturbed(self, devices: Sequence[int], seed: int) -> AbstractContextManager[None]:
        """A context in which the devices are kept busy at random moments, for random times."""
        ...
