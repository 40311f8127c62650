"""Modules that a library imports and seldom uses, left out until somebody uses them.

scikit-learn imports pandas where it is installed, that imports pyarrow, and neither is used before somebody brings a
data frame; of scipy.stats it takes five functions. Whoever forks from the one who imported has all of it in memory.
docs/decisions/preload-imports.md says why this is our own.

Lean: the launcher has nothing else in memory yet.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class _Absent(ModuleType):
    """Stands for a module: what is taken out of it stands for something in there, until that is used."""

    def __getattr__(self, name: str) -> Any:
        if name == "__path__":  # whoever asks is importing a part of it
            raise AttributeError(f"{self.__name__} is left out for now")
        if name.startswith("__"):
            return getattr(_real(self.__name__), name)
        return _Deferred(self, name)


class _Deferred:
    """A function or a class of a module that is imported when it is called, derived from, asked whether something is
    of it (`isinstance`, `issubclass`), or looked into."""

    def __init__(self, module: _Absent, name: str) -> None:
        self._within = module.__name__
        self._named = name

    def _found(self) -> Any:
        return getattr(_real(self._within), self._named)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._found()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._found(), name)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._found(),)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, self._found())

    def __subclasscheck__(self, subclass: type) -> bool:
        return issubclass(subclass, self._found())


@contextmanager
def left_out(names: Sequence[str]) -> Iterator[None]:
    """Whoever imports one of these modules within the block gets it when it is used; behind the block everybody gets
    the module itself. One that is not installed, or imported already, is as ever. For a process with one thread."""
    absent = {name: _Absent(name) for name in names if name not in sys.modules and find_spec(name)}
    sys.modules.update(absent)
    try:
        yield
    finally:
        for name, module in absent.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def import_lean(name: str, without: Sequence[str]) -> None:
    """Import a module with these left out; as ever, when it wants more of one of them than can be put off."""
    try:
        with left_out(without):
            import_module(name)
    except Exception:  # noqa: BLE001  a module that cannot be imported at all says so now
        import_module(name)


def _real(name: str) -> ModuleType:
    if isinstance(sys.modules.get(name), _Absent):  # used while it is left out
        del sys.modules[name]
    return import_module(name)
