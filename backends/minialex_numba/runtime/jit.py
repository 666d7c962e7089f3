"""`kernel`: Numba's compiler, with a cache on disk whose failures never stop a run.

Kernels release the GIL, so that threads can share the work (`minialex_numba.runtime.threads`). They are compiled on the
first call for each dtype and cached on disk: under ``NUMBA_CACHE_DIR`` if that is set, else in the user's cache folder,
in a folder named after a digest of this package's sources, so that another version's kernel is never loaded. If no
folder is writable, each process compiles its kernels itself, and a notice says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numba
from numba import njit, types

from minialex_numba.runtime.lean import KernelCompiler, PartCompiler

logger = logging.getLogger("minialex.numba")


def candidates() -> list[Path]:
    """Folders that may hold compiled kernels, most preferred first."""
    if os.environ.get("NUMBA_CACHE_DIR"):  # empty means unset, as for Numba, not the working directory
        return [Path(os.environ["NUMBA_CACHE_DIR"])]
    if os.name == "nt":
        return [Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "minialex" / "numba"]
    return [Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minialex" / "numba"]


@lru_cache(maxsize=1)
def cache_folder() -> str | None:
    """The folder of this version's kernels, created if needed; None, with one notice, if none is writable."""
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(source.read_bytes())
    for folder in candidates():
        try:
            mine = folder / digest.hexdigest()[:16]
            mine.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=mine):
                return str(mine)
        except (OSError, RuntimeError) as error:  # RuntimeError: no home directory
            logger.warning(
                "compiled kernels cannot be kept in %s (%s), so they are compiled again in each run. Set NUMBA_CACHE_DIR to a"
                " writable folder.",
                folder,
                error,
            )
    return None


LEAN: dict[str, Any] = {"nogil": True, "_nrt": False}
"""No reference counting: a kernel's caller holds its arrays."""


def kernel(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Compile a function on its first call for each set of argument types, without the GIL, cached on disk.

    Args:
        function: the function to compile
        options: passed to Numba
    """
    if function is None:
        return lambda function: kernel(function, **options)
    options = {**LEAN, "pipeline_class": KernelCompiler, **options}
    folder = cache_folder()
    if folder is None:
        return njit(**options)(function)
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, folder
    try:
        compiled = njit(cache=True, **options)(function)
    finally:
        numba.config.CACHE_DIR = before
    _forgive(compiled)
    return compiled


def part(function: Callable[..., Any] | None = None, /, *, literals: bool = True, inline: str = "never") -> Any:
    """A function that kernels call and Python does not: it is compiled into each of them, never alone.

    Args:
        function: the function to compile
        literals: whether to specialise the function for literal numbers in a kernel's call of it: faster if they
            decide what an inner loop does, but compiled once per such call
        inline: passed to Numba
    """
    if function is None:
        return lambda function: part(function, literals=literals, inline=inline)
    alone: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    options: dict[str, Any] = {**LEAN, **alone, "pipeline_class": PartCompiler, "inline": inline}
    compiled = njit(**options)(function)
    _refuse_python(compiled)
    if not literals:
        _take_literals_as_numbers(compiled)
    return compiled


def _refuse_python(compiled: Any) -> None:
    """Let a call from Python, for which there is no machine code, raise an error instead of ending the process."""
    name = compiled.py_func.__name__

    def compile_for_call(*args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"{name} is compiled into the kernels that call it, and has no machine code of its own: call it in a @kernel, "
            f"or call {name}.py_func, the function as it is written"
        )

    def add_overload(result: Any) -> None:  # without telling the dispatcher, which would jump to address 0
        compiled.overloads[tuple(result.signature.args)] = result

    compiled._compile_for_args, compiled.add_overload = compile_for_call, add_overload


def _take_literals_as_numbers(compiled: Any) -> None:
    template_of, plain = compiled.get_call_template, cast(Any, types.unliteral)

    def get_call_template(args: Any, kws: Any) -> Any:
        return template_of(tuple(map(plain, args)), {name: plain(kind) for name, kind in kws.items()})

    compiled.get_call_template = get_call_template


def _forgive(compiled: Any) -> None:
    """Let a cache that is full, damaged or gone cost time, not the run."""
    cache = compiled._cache
    load, save = cache.load_overload, cache.save_overload

    def load_overload(*args: Any) -> Any:
        try:
            return load(*args)
        except Exception as error:  # unpickling a damaged file may raise anything
            _notice("read", error)
            with contextlib.suppress(Exception):
                cache.flush()  # else a damaged index could not be overwritten either
            return None

    def save_overload(*args: Any) -> None:
        try:
            save(*args)
        except Exception as error:
            _notice("written", error)

    cache.load_overload, cache.save_overload = load_overload, save_overload


_noticed: set[str] = set()


def _notice(what: str, error: Exception) -> None:
    if what in _noticed:
        return
    _noticed.add(what)
    logger.warning("the cache of compiled kernels could not be %s (%s); they are compiled again", what, error)
