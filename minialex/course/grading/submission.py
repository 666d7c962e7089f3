"""A student's submission: where it is, which operations it has, and where each was written.

`source` finds it without importing; `load` imports it, and therefore belongs in a separate process
(`minialex.course.grading.worker`).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from minialex.backend import operations, pretend, registry
from minialex.backend.pretend import operation
from minialex.backend.protocol import MOVERS, OPERATIONS, Backend
from minialex.backend.rules import RULES
from minialex.course.grading import student
from minialex.course.grading.complete import complete
from minialex.course.grading.result import said
from minialex.errors import ConfigurationError, nearest

ORDER = (*MOVERS, *OPERATIONS)
SKIPPED = re.compile(r"(test_.*|.*_test|conftest|setup|__main__)$")  # modules of a folder that are skipped


@dataclass(frozen=True)
class Source:
    """Where a submission is: a path, an installed backend's name, or a module with, if given, a class."""

    kind: str  # "path", "installed" or "module"
    text: str
    attribute: str = ""


def source(text: str) -> Source:
    """Find where a submission is, without importing it.

    Raises:
        ConfigurationError: If there is nothing of that name.
    """
    path = Path(text)
    looks_like_path = text.endswith(".py") or "/" in text or os.sep in text
    if not looks_like_path and text in registry.installed():
        return Source("installed", text)
    if path.is_dir() or (path.is_file() and path.suffix == ".py"):
        return Source("path", str(path.resolve()))
    if looks_like_path or path.exists():
        raise ConfigurationError(f"'{text}' is neither a folder nor a .py file")
    module, _, attribute = text.partition(":")
    top = module.partition(".")[0]
    _look_here()
    try:
        found = bool(top) and importlib.util.find_spec(top) is not None
    except ValueError:
        found = False
    if not found:
        hint = nearest(text, [*registry.installed(), *(entry.name for entry in Path().iterdir())])
        raise ConfigurationError(
            f"nothing to grade called '{text}': no file, no folder, no installed backend, no module of that name.{hint}"
        )
    return Source("module", module, attribute)


def _look_here() -> None:
    """Make modules in the current folder importable."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


@dataclass
class Submission:
    """Operations of a student, as a backend.

    Attributes:
        backend: the student's, perhaps completed by the reference; None if none could be made
        own: for each operation, the place where it was written, ``FILE:LINE``
        borrowed: for each operation that the submission has but did not write, where it comes from
        signatures: for each operation, what is wrong with its parameters
        faults: what could not be imported or built, with file and line
        completed: whether the reference fills in what is left out
        inside: files and folders that belong to the submission
        lenient: whether results of another numeric dtype are accepted (`minialex.course.grading.student`)
        overlooked: for each operation, what was tolerated
    """

    backend: Backend | None = None
    own: dict[str, str] = field(default_factory=dict)
    borrowed: dict[str, str] = field(default_factory=dict)
    signatures: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    completed: bool = True
    inside: tuple[Path, ...] = ()
    lenient: bool = False
    overlooked: dict[str, set[str]] = field(default_factory=dict)

    def holds(self, file: str) -> bool:
        """Whether a file belongs to the submission."""
        path = Path(file).resolve()
        return any(path == part or part in path.parents for part in self.inside)

    def place(self, file: str, line: int) -> str:
        """A file of the submission and a line in it, as readable text."""
        path = Path(file).resolve()
        for part in self.inside:
            if part in path.parents:
                return f"{path.relative_to(part)}:{line}"
        return f"{path.name}:{line}"

    def where(self, error: BaseException) -> str:
        """The innermost place in the submission that an error passed through, or an empty string."""
        if isinstance(error, SyntaxError) and error.filename and self.holds(error.filename):
            return self.place(error.filename, error.lineno or 0)
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if self.holds(frame.filename)]
        return self.place(frames[-1].filename, frames[-1].lineno or 0) if frames else ""

    def explain(self, error: BaseException) -> str:
        """An error of the submission in one line: place, type, message."""
        text = error.msg if isinstance(error, SyntaxError) else said(error)
        return ": ".join(filter(None, (self.where(error), type(error).__name__, " ".join(str(text).split()))))


class Ambiguous(ConfigurationError):
    """It is ambiguous what to grade, which is not the student's fault."""


def load(where: Source, lenient: bool = False) -> Submission:
    """Import a submission and find its operations. All errors in its code are among its `faults`.

    Args:
        where: where the submission is
        lenient: see `Submission`

    Raises:
        Ambiguous: If it has no class of the name that was given, or several and none was named.
    """
    submission = Submission(lenient=lenient)
    try:
        if where.kind == "installed":
            kind = registry.installed()[where.text].load()
            submission.inside = _folder(sys.modules[kind.__module__.partition(".")[0]])
            _take_class(submission, kind)
        else:
            _take(submission, list(_modules(submission, where)), where.attribute)
            _take_registered(submission)
    except Ambiguous:
        raise
    except BaseException as error:  # also SystemExit, since the student's code runs here
        submission.faults.append(submission.explain(error))
    if submission.backend is None:  # nothing in it can be called
        submission.own, submission.borrowed = {}, {}
    return submission


# ---- importing ------------------------------------------------------------------------------------------------


def _folder(module: ModuleType) -> tuple[Path, ...]:
    """The folder of a package, or the file of a module."""
    paths = [Path(path).resolve() for path in getattr(module, "__path__", ())]
    file = getattr(module, "__file__", None)
    return tuple(paths) or ((Path(file).resolve(),) if file else ())


def _modules(submission: Submission, where: Source) -> Iterator[ModuleType]:
    """The modules of a submission, imported one after another; failures are among its faults."""
    if where.kind == "module":
        _look_here()
        spec = importlib.util.find_spec(where.text.partition(".")[0])
        assert spec is not None
        places = spec.submodule_search_locations or ([spec.origin] if spec.origin else [])
        submission.inside = tuple(Path(place).resolve() for place in places)
        module = importlib.import_module(where.text)
    else:
        path = Path(where.text)
        submission.inside = (path,)
        sys.path.append(str(path.parent if path.is_file() else path))
        module = _import_path(submission, path)
    yield module
    if hasattr(module, "__path__"):
        for info in sorted(pkgutil.iter_modules(module.__path__), key=lambda info: info.name):
            if not SKIPPED.match(info.name):
                try:
                    part = importlib.import_module(f"{module.__name__}.{info.name}")
                except BaseException as error:
                    submission.faults.append(submission.explain(error))
                    continue
                yield part


def _import_path(submission: Submission, path: Path) -> ModuleType:
    """Import a file or a folder (with or without ``__init__.py``) under its own name, or one like it."""
    name = re.sub(r"\W", "_", path.stem if path.is_file() else path.name)
    if not name.isidentifier() or name in sys.modules or importlib.util.find_spec(name) is not None:
        name = f"submission_{name}"  # never replaces a module that something else needs
    file, parts = (path, None) if path.is_file() else (path / "__init__.py", [str(path)])
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=parts)
    assert spec is not None
    if not file.exists():
        spec.loader = None  # a folder of files
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if spec.loader is not None:
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            if path.is_file():
                raise
            submission.faults.append(submission.explain(error))  # its other files may be fine
    return module


# ---- what it has ----------------------------------------------------------------------------------------------


def _take(submission: Submission, modules: list[ModuleType], attribute: str) -> None:
    """Find the class or the functions."""
    if attribute:
        kind = getattr(modules[0], attribute, None)
        if not isinstance(kind, type):
            raise Ambiguous(f"{modules[0].__name__} has no class '{attribute}'")
        _take_class(submission, kind)
        return
    kinds: list[type] = []
    for module in modules:
        for kind in vars(module).values():
            if isinstance(kind, type) and kind.__module__ == module.__name__ and _written(kind) and kind not in kinds:
                kinds.append(kind)
    if len(kinds) > 1:
        names = ", ".join(kind.__name__ for kind in kinds)
        raise Ambiguous(f"several classes have operations ({names}): say which one, as module:Class")
    if kinds:
        _take_class(submission, kinds[0])
    else:
        _take_functions(submission, modules)


def _code(member: Any) -> Any:
    """The code that a member runs, or None if it is not written in Python."""
    if isinstance(member, staticmethod | classmethod):
        member = member.__func__
    member = inspect.unwrap(member)
    member = getattr(member, "py_func", member)  # numba's
    return getattr(member, "__code__", None)


def _take_functions(submission: Submission, modules: list[ModuleType]) -> None:
    """Plain functions on NumPy arrays, in any of the modules."""
    functions: dict[str, Any] = {}
    for name in OPERATIONS:
        for module in modules:
            function = vars(module).get(name)
            code = None if isinstance(function, type | ModuleType) or not callable(function) else _code(function)
            if code is None:
                continue
            place = submission.place(code.co_filename, code.co_firstlineno)
            if not submission.holds(code.co_filename):
                submission.borrowed[name] = f"comes from {getattr(function, '__module__', None) or code.co_filename}"
            elif functions.setdefault(name, function) is not function:
                submission.faults.append(f"{name} is defined twice: {submission.own[name]} and {place}")
            else:
                submission.own[name] = place
    submission.borrowed = {name: text for name, text in submission.borrowed.items() if name not in functions}
    _complete(submission, functions)


def _take_registered(submission: Submission) -> None:
    """Operations that the submission registered with examples, besides the protocol's."""
    for added in operations.OPERATIONS.values():
        for function in (added.forward, added.backward) if added.examples else ():
            code = _code(function.plain)
            if code is not None and submission.holds(code.co_filename):
                submission.own[function.name] = submission.place(code.co_filename, code.co_firstlineno)


def _complete(submission: Submission, functions: dict[str, Any]) -> None:
    """Make the backend from the student's functions; those with wrong parameters are left out and reported."""
    for name, function in list(functions.items()):
        fault = registry.signature_fault(name, function)
        if fault:
            submission.signatures[name] = fault
            del functions[name]
        elif submission.lenient and not isinstance(function, operation):
            remark = submission.overlooked.setdefault(name, set()).add
            functions[name] = student.lenient(name, function, remark)
    submission.backend = complete(functions)


def _written(kind: type) -> dict[str, type]:
    """The protocol's names that a class has, each with the base that defines it, except the protocol itself."""
    found = {}
    for name in ORDER:
        owner = next((base for base in kind.__mro__ if name in vars(base)), None)
        if owner is not None and owner is not Backend:
            found[name] = owner
    return found


def _take_class(submission: Submission, kind: type) -> None:
    """A class with operations: a whole backend, or one that brings its own arrays, or a few methods."""
    written = _written(kind)
    for name, owner in written.items():
        member = vars(owner)[name]
        code = _code(member) if callable(member) or isinstance(member, staticmethod | classmethod) else None
        file = code.co_filename if code is not None else inspect.getsourcefile(owner) or ""
        home = inspect.getsourcefile(owner) or ""
        if not submission.holds(home):
            continue  # inherited: not the student's own
        if submission.holds(file) or (name in MOVERS and file == pretend.__file__):
            line = code.co_firstlineno if code is not None else inspect.getsourcelines(owner)[1]
            submission.own[name] = submission.place(file, line)
            fault = registry.signature_fault(name, member)
            if fault:
                submission.signatures[name] = fault
        else:
            submission.borrowed[name] = f"comes from {getattr(inspect.unwrap(member), '__module__', file)}"
    if getattr(kind, "__abstractmethods__", None):  # a few methods of Backend: the rest is filled in below
        kind = type(kind.__name__, (kind,), {})
        kind.__abstractmethods__ = frozenset()  # type: ignore[attr-defined] # Python has it, typeshed has not
    theirs = registry.build(kind.__name__, kind)
    submission.completed = "to_device" not in submission.own
    if not submission.completed:
        submission.backend = theirs
        return
    functions = {}
    for name in [name for name in submission.own if name in RULES and name in (*MOVERS, *OPERATIONS)]:
        member = inspect.getattr_static(kind, name)
        functions[name] = member if isinstance(member, operation) else getattr(theirs, name)
    submission.own = {name: place for name, place in submission.own.items() if name in functions}
    _complete(submission, functions)
