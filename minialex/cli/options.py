"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

BackendOption = Annotated[str | None, typer.Option("--backend", help="installed backend; see `minialex backends`")]
DevicesOption = Annotated[
    str | None, typer.Option("--devices", help="one device for all columns, or one a column: 0,1 or cpu:0,cpu:1")
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="threads of the backend")]
PrecisionOption = Annotated[
    str | None, typer.Option("--precision", help="float32, tf32 or bfloat16, where the backend has a choice; the run's")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]
