"""User code: a policy or a trainable in a file, a module, or an installed package.

`find` says where it is and what its digest is, and runs nothing; only `OwnCode.load` runs it. What is found can be pickled:
other processes load the same code, and refuse other code of its name. The working folder does not become importable by this.

Imports the standard library and sim.model.errors.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from elastune.sim.model.errors import InputError

ResultT = TypeVar("ResultT")
SLOW_S = 10.0
"""Seconds of an import after which the user is told what is waited for."""
_PACKAGE = Path(__file__).parents[1]
_PLACE = re.compile(r"(?:.+?\.py|[^\W\d][\w.]*):[^\W\d]\w*(?=\s*(?:[:(]|$))")
"""`file.py:Name` or `module:Name`, with parameters after it or nothing."""
_CITED = re.compile(r".+, sha256 [0-9a-f]{64}")
"""As `OwnCode.cited`; other sources, such as a paper's, say nothing of code."""
_DIGEST = re.compile(r"(?<=sha256 )[0-9a-f]{64}")


def place_in(text: str) -> str:
    """The `file.py:Name` or `module:Name` that a text begins with; empty where it begins otherwise."""
    found = _PLACE.match(text.strip())
    return found[0] if found else ""


def absolute(text: str, folder: Path) -> str:
    """The same text, with a file of the user's own as an absolute path; a relative one starts from this folder."""
    place = place_in(text)
    if not is_file(place):
        return text
    file = Path(place.rpartition(":")[0]).expanduser()
    rest = text.strip()[len(place) :]
    # Not resolved, as a link is named as the user named it.
    return f"{Path(os.path.abspath(folder / file)).as_posix()}:{place.rpartition(':')[2]}{rest}"  # noqa: PTH100


def is_file(place: str) -> bool:
    """Whether the code is in a file, not in a module."""
    return place.rpartition(":")[0].endswith(".py")


@dataclass(frozen=True)
class OwnCode:
    """A class or function of the user's own.

    Attributes:
        name: what it is known by: its place, or the name of an entry point.
        place: `file.py:Name` with an absolute path, or `module:Name`.
        sha256: of the file, or of all Python files of the module's top-level package.
        source: of the file, which goes along to other machines; None for a module, which must be installed there.
        folder: where the module's top-level package lies; empty for a file.
    """

    name: str
    place: str
    sha256: str
    source: bytes | None = field(repr=False)
    folder: str = ""

    @property
    def short(self) -> str:
        """The name without folders, for tables."""
        return self.name.rpartition("/")[2]

    @property
    def cited(self) -> str:
        """Name and digest, as in what was recorded with it."""
        return f"{self.short}, sha256 {self.sha256}"

    def load(self) -> Any:  # noqa: ANN401  whatever has this name there
        """Run the code; gives what has the name.

        Raises:
            InputError: it cannot be imported, is not what it was, or has no such name.
        """
        return _loaded(self)

    def module(self) -> ModuleType:
        """The module with the code; see `load`."""
        return _module(self)


def is_other_code(recorded: str, now: str) -> bool:
    """Whether something was recorded with code of somebody's own, and with other code than now; both as cited."""
    return recorded != now and _CITED.fullmatch(recorded) is not None


def _shortened(cited: str) -> str:
    """The same citation, with as much of the digest as tells two apart."""
    return _DIGEST.sub(lambda digest: digest[0][:12], cited)


def changed_phrase(recorded: str, now: str) -> str:
    """In words, that a bundle was recorded with other code than the spec names now, both as cited; empty where it was not."""
    if not is_other_code(recorded, now):
        return ""
    return f"was recorded with {_shortened(recorded)}, but workload.trainable is {_shortened(now)} now"


def find(name: str, *, group: str = "") -> OwnCode | None:
    """The code of this name, not yet run; None where the name is neither a place nor an entry point of the group.

    Args:
        name: `file.py:Name` (from the working folder), `module:Name` (installed, or in the working folder), or an entry point.
        group: of entry points that count.

    Raises:
        InputError: there is no such file or module.
    """
    place = place_in(name)
    if place != name.strip() or not place:
        known = installed(group) if group else {}
        if name not in known:
            _require_no_bare_file(name.strip())
            return None
        place = known[name]
    else:
        name = place = absolute(place, Path.cwd())
    where = place.rpartition(":")[0]
    if not is_file(place):
        spec = _spec_of(where, str(Path.cwd()))
        return OwnCode(name, place, _digest_of(spec), None, str(_home(spec)))
    try:
        source = Path(where).read_bytes()
    except FileNotFoundError:
        raise InputError(f"there is no file {where}") from None
    except OSError as error:
        raise InputError(f"{where}: cannot be read: {error.strerror}") from error
    return OwnCode(name, place, hashlib.sha256(source).hexdigest(), source)


def _require_no_bare_file(name: str) -> None:
    """Refuse a file without what it defines; the file is read, not run."""
    if not name.endswith(".py"):
        return
    try:
        defined = ast.parse(Path(name).read_bytes()).body
    except FileNotFoundError:
        raise InputError(f"there is no file {name}; a policy or trainable of your own is file.py:Name") from None
    except (OSError, SyntaxError, ValueError):  # they are told where the code is named in full
        defined = []
    kinds = [one for one in defined if isinstance(one, ast.ClassDef)] or defined
    names = [
        one.name for one in kinds if isinstance(one, ast.ClassDef | ast.FunctionDef) and not one.name.startswith("_")
    ]
    told = " or ".join(f"{name}:{one}" for one in names) or f"{name}:Name"
    raise InputError(f"{name} is a file, and what it defines must be named too, as {told}")


def installed(group: str) -> dict[str, str]:
    """The `module:Name` of each entry point of a group, by name."""
    return {entry.name: entry.value for entry in sorted(entry_points(group=group), key=lambda entry: entry.name)}


@functools.cache
def _loaded(code: OwnCode) -> Any:  # noqa: ANN401  whatever has this name there
    where, _, name = code.place.rpartition(":")
    module = _module(code)
    if not hasattr(module, name):
        top = module.__name__.partition(".")[0]  # what is only imported there is not meant
        public = ", ".join(
            known
            for known, value in vars(module).items()
            if not known.startswith("_") and str(getattr(value, "__module__", "")).partition(".")[0] == top
        )
        raise InputError(f"{code.name}: {where} has no {name!r}; it has {public or 'nothing public'}")
    return getattr(module, name)


@functools.cache
def _module(code: OwnCode) -> ModuleType:
    where = code.place.rpartition(":")[0]
    try:
        with _told_when_slow(where):
            if code.source is not None:
                return _of_source(where, code.source, code.sha256)
            _require_same(code, _spec_of(where, code.folder))
            return _of_package(where, code.folder)
    except (InputError, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever code of the user's own does, sys.exit included
        shown = where if code.source is None else Path(where)
        raise InputError(
            f"{shown} cannot be imported: {type(error).__name__}: {error}{raised_at(error)}{_advice(code, error)}"
        ) from error


@contextmanager
def _told_when_slow(where: str) -> Iterator[None]:
    """Say once what is waited for, where it takes long: a file may train, or never end, when it is imported."""
    told = f"importing {where} takes more than {SLOW_S:.0f} s; Ctrl-C ends it"
    timer = threading.Timer(SLOW_S, warnings.warn, [told])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def called(call: Callable[[], ResultT]) -> ResultT:
    """What a call of the user's own code gives. What would end the process there, as sys.exit does, is an error like others.

    Raises:
        RuntimeError: in place of SystemExit and of other exceptions that are no errors, from the same line.
    """
    try:
        return call()
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise RuntimeError(f"{type(error).__name__}: {error}").with_traceback(error.__traceback__) from error


def has_run() -> bool:
    """Whether this process has run code of the user's own."""
    return bool(_own_places)


def _of_source(file: str, source: bytes, sha256: str) -> ModuleType:
    # A name of its own: a file `random.py` must not stand for the standard library's. Dataclasses and pickling look it up.
    module = ModuleType(f"elastune_own_{sha256[:16]}")
    module.__file__ = file
    sys.modules[module.__name__] = module
    _own_places.add(file)
    try:
        exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)  # noqa: S102  the user named it
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


def _of_package(name: str, folder: str) -> ModuleType:
    """Import a module; only its top-level package is looked for in the folder, if it is not installed."""
    top = name.partition(".")[0]
    spec = _spec_of(name, folder)
    _own_places.add(str(_root(spec)))
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        assert spec.loader is not None or spec.submodule_search_locations is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[top] = module
        try:
            if spec.loader is not None:
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[top]
            raise
    return importlib.import_module(name)


def _spec_of(module: str, folder: str) -> ModuleSpec:
    """Where the top-level package of a module is: installed, or else in the folder."""
    top = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # such as __main__
        spec = None
    spec = spec or PathFinder.find_spec(top, [folder])
    if spec is None:
        raise InputError(f"{module} cannot be imported: ModuleNotFoundError: No module named {top!r}")
    if not any(_files(spec)):
        raise InputError(
            f"{module} cannot be used: {top} has no Python files; name a file.py or a module of Python files"
        )
    return spec


def _root(spec: ModuleSpec) -> Path:
    """The folder of a package, or the file of a module."""
    return Path(next(iter(spec.submodule_search_locations or ()), None) or spec.origin or "")


def _home(spec: ModuleSpec) -> Path:
    return _root(spec).parent


def _files(spec: ModuleSpec) -> Iterator[Path]:
    root = _root(spec)
    if root.is_dir():
        yield from sorted(root.rglob("*.py"))
    elif root.suffix == ".py" and root.is_file():
        yield root


def _digest_of(spec: ModuleSpec) -> str:
    digest = hashlib.sha256()
    for file in _files(spec):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(_home(spec)).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _require_same(code: OwnCode, spec: ModuleSpec) -> None:
    now = _digest_of(spec)
    if now != code.sha256:
        raise InputError(
            f"{code.name}: the code in {_root(spec)} differs from the code that the run was started with (sha256 {now}, not"
            f" {code.sha256}): install the same everywhere, and do not change it while it runs"
        )


def _advice(code: OwnCode, error: BaseException) -> str:
    if code.source is None or not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    if not (Path(code.place).parent / f"{error.name.partition('.')[0]}.py").exists():
        return ""
    return "; what lies beside the file cannot be imported: make a package of it, and name it as module:Name"


# Where an error was raised.

_own_places: set[str] = set()
"""Files, and folders of packages, from which code of the user's own was loaded."""


def raised_at(error: BaseException) -> str:
    """` (FILE, line N, in NAME)`: the last line of the first file before an error that is not ours; nothing if all are."""
    return _last_of(error, lambda file: not (file.startswith("<") or Path(file).is_relative_to(_PACKAGE)))


def raised_in_own_code(error: BaseException) -> str:
    """` (FILE, line N, in NAME)`: the last line of code that was loaded here before an error; nothing if it took no part."""
    return _last_of(error, lambda file: any(Path(file).is_relative_to(place) for place in _own_places))


def _last_of(error: BaseException, is_meant: Any) -> str:  # noqa: ANN401
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_meant(frame.filename)]
    if not frames:
        return ""
    last = [frame for frame in frames if frame.filename == frames[0].filename][-1]
    return f" ({last.filename}, line {last.lineno}, in {last.name})"
