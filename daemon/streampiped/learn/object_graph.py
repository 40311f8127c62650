"""A graph of Python objects as portable state, without pickle: what River's models are made of.

`portable.py` takes an estimator apart as a tree. A model of River is a graph: nodes know their parents, leaves share a
generator, and trees are deeper than a stack. Here every object is one entry of a list, and refers to others by their
place. What is written for an object is its attributes; the list of what may be an object is fixed in our code
(`Allowed`), and neither writing nor reading calls anything that the state names.

    {"shapes": [{"kind": "object", "class": "river.stats.mean.Mean", "names": ["n", "_mean"]}],
     "entries": [[0, 3.0, 1.5]]}

An entry is the place of its shape and its values: None, bool, int, float, str or bytes as they are, `[n]` for entry n,
`["int", digits]` for an int beyond 64 bits. The first entry is the root.
"""

from __future__ import annotations

import gc
import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Final, Protocol, TypeAlias

import numpy as np

from streampiped.learn.portable import NotPortableError, decode, encode

PLAIN_INT: Final = 1 << 63
MAPPINGS: Final = {"dict": dict, "OrderedDict": OrderedDict, "Counter": Counter, "defaultdict": defaultdict}
SERIES: Final = {"list": list, "set": set, "deque": deque, "tuple": tuple, "frozenset": frozenset}
KINDS: Final = {cls: kind for kind, cls in (MAPPINGS | SERIES).items()}
UNCHANGING: Final = frozenset({"tuple", "frozenset", "partial", "method"})
"""Kinds that have to be made with what is in them."""
ATOMS: Final = frozenset({float, str, bool, bytes, type(None)})
KEYS: Final = ATOMS | {int}
"""What has the same hash in every process, or none that depends on what is in an object."""
MISSING: Final = object()
PATH_PARTS_MAX: Final = 12  # that an error names: those of a leaf of a deep tree would fill a page
PLAIN_FACTORIES: Final[Mapping[str, type]] = {
    f"{cls.__module__}.{cls.__name__}": cls for cls in (int, float, bool, str, list, set, dict, Counter, defaultdict)
}
"""Classes that may be a value, besides those that are allowed: what makes the missing value of a defaultdict."""


Idle: TypeAlias = Mapping[str, Callable[[], Any]]


class Allowed(Protocol):
    """What may be in a graph beyond Python's own containers and numpy's arrays."""

    def has(self, cls: type) -> bool:
        """Whether an instance is its attributes and nothing else, and may be one of ours."""

    def idle(self, cls: type) -> Idle:
        """Attributes of its instances that nothing depends on, and what makes another value of each."""

    def may_name(self, value: Any) -> bool:
        """Whether this class or function may stand as a value."""

    def resolve(self, name: str) -> Any:
        """What may stand as a value, or the class that `has` accepts. NotPortableError for everything else."""

    def is_native(self, cls: type) -> bool:
        """Whether an instance is not made of Python's attributes, and has `native_parts` all the same."""

    def native_parts(self, value: Any) -> list[Any]:
        """Plain values to make it again. NotPortableError when these are not all that it is."""

    def native(self, name: str, parts: list[Any]) -> Any:
        """What `native_parts` was given. NotPortableError."""


def full_name(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def take_apart(root: Any, allowed: Allowed) -> dict[str, Any]:
    """The portable form, sharing nothing with the graph. NotPortableError says where from the root on it stands, and
    what it is."""
    collecting = gc.isenabled()
    gc.disable()  # half of the time went into looking through what is being made: none of it is garbage
    try:
        return _Writer(allowed).write(root)
    finally:
        if collecting:
            gc.enable()


def put_together(data: Mapping[str, Any], allowed: Allowed) -> Any:
    """The root of a new graph. NotPortableError for what no `take_apart` has written."""
    try:
        return _Reader(data, allowed).read()
    except NotPortableError:
        raise
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise NotPortableError(f"no graph of objects: {error!r}") from error


class _Writer:
    """One pass, first reached first written. `_objects` keeps every object alive, so that an id stays its own."""

    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed
        self._places: dict[int, int] = {}
        self._objects: list[Any] = []
        self._where: list[tuple[int, Any]] = []  # of each object: whose part it is, and which
        self._shapes: dict[tuple[Any, ...], int] = {}
        self._ways: dict[type, Callable[[Any, int], list[Any]]] = {}

    def write(self, root: Any) -> dict[str, Any]:
        entries: list[list[Any]] = []
        self._value(root, -1, "")
        for place, value in enumerate(self._objects):  # grows while it is walked
            way = self._ways.get(type(value))
            if way is None:
                way = self._ways[type(value)] = self._way(type(value), place)
            entries.append(way(value, place))
        shapes = [{"kind": kind, "class": name, "names": list(names)} for kind, name, names in self._shapes]
        return {"shapes": shapes, "entries": entries}

    def _value(self, value: Any, owner: int, part: Any) -> Any:
        """`part` is text for an attribute, in a tuple for what is in a container."""
        if type(value) in ATOMS:
            return value
        if type(value) is int:
            return value if -PLAIN_INT <= value < PLAIN_INT else ["int", str(value)]
        place = self._places.setdefault(id(value), len(self._objects))
        if place == len(self._objects):
            self._objects.append(value)
            self._where.append((owner, part))
        return [place]

    def _way(self, cls: type, place: int) -> Callable[[Any, int], list[Any]]:
        """How what is of this class is written."""
        if cls in KINDS:
            kind = KINDS[cls]
            return partial(self._mapping if kind in MAPPINGS else self._series, kind, self._shape(kind, ""))
        if issubclass(cls, np.ndarray | np.generic | np.random.RandomState):
            return self._array
        if cls is random.Random:
            return self._random
        if cls is partial:
            return self._partial
        if cls is MethodType:
            return self._method
        if issubclass(cls, type | FunctionType | BuiltinFunctionType):
            return self._name
        if self._allowed.is_native(cls):
            return self._native
        if not self._allowed.has(cls):
            raise NotPortableError(f"{self._path(place)} is a {full_name(cls)}")
        return partial(self._object, full_name(cls), slots_of(cls), self._allowed.idle(cls))

    def _object(self, cls: str, slots: Sequence[str], idle: Idle, value: Any, place: int) -> list[Any]:
        names, values = [], [0]
        for name, item in getattr(value, "__dict__", {}).items():
            names.append(name)
            values.append(self._value(None if name in idle else item, place, name))
        for name in slots:
            item = getattr(value, name, MISSING)
            if item is not MISSING:
                names.append("|" + name)
                values.append(self._value(item, place, name))
        values[0] = self._shape("object", cls, tuple(names))
        return values

    def _mapping(self, kind: str, shape: int, value: Any, place: int) -> list[Any]:
        result: list[Any] = [shape]
        if kind == "defaultdict":
            result.append(self._value(value.default_factory, place, "default_factory"))
        for key, item in value.items():
            if type(key) not in KEYS and not _is_key(key):
                raise NotPortableError(f"{self._path(place)} has a key that is a {full_name(type(key))}")
            result.append(self._value(key, place, "key"))
            result.append(self._value(item, place, (key,)))
        return result

    def _series(self, kind: str, shape: int, value: Any, place: int) -> list[Any]:
        if kind == "deque":
            return [shape, value.maxlen, *[self._value(item, place, (n,)) for n, item in enumerate(value)]]
        if kind in ("set", "frozenset"):  # in one order for all processes: that of a set of text changes with each
            for item in value:
                if not _is_key(item):
                    raise NotPortableError(f"{self._path(place)} has a member that is a {full_name(type(item))}")
            value = sorted(value, key=_rank)
        return [shape, *[self._value(item, place, (n,)) for n, item in enumerate(value)]]

    def _array(self, value: Any, place: int) -> list[Any]:
        return [self._shape("array", ""), encode(value, self._path(place))]

    def _random(self, value: random.Random, place: int) -> list[Any]:
        _, words, gauss = value.getstate()
        return [self._shape("random", ""), np.array(words, dtype=np.uint32), gauss]

    def _partial(self, value: partial[Any], place: int) -> list[Any]:
        parts = (value.func, *value.args, *(part for pair in value.keywords.items() for part in pair))
        shape = self._shape("partial", "", (str(len(value.args)),))
        return [shape, *[self._value(part, place, (n,)) for n, part in enumerate(parts)]]

    def _method(self, value: MethodType, place: int) -> list[Any]:
        """Of an object of the graph, one of the methods of its class."""
        name = value.__func__.__name__
        if getattr(type(value.__self__), name, None) is not value.__func__:
            raise NotPortableError(f"{self._path(place)} is {full_name(value)}")
        return [self._shape("method", ""), self._value(value.__self__, place, "__self__"), name]

    def _native(self, value: Any, place: int) -> list[Any]:
        try:
            return [self._shape("native", full_name(type(value))), *self._allowed.native_parts(value)]
        except NotPortableError as error:
            raise NotPortableError(f"{self._path(place)} is {error}") from error

    def _name(self, value: Any, place: int) -> list[Any]:
        name = full_name(value)
        if PLAIN_FACTORIES.get(name) is not value and not self._allowed.may_name(value):
            raise NotPortableError(f"{self._path(place)} is {name}")
        return [self._shape("name", name)]

    def _shape(self, kind: Any, name: str, names: tuple[str, ...] = ()) -> int:
        return self._shapes.setdefault((kind, name, names), len(self._shapes))

    def _path(self, place: int) -> str:
        parts: list[str] = []
        while place > 0 and len(parts) < PATH_PARTS_MAX:
            place, part = self._where[place]
            parts.append(f"[{part[0]!r}]" if isinstance(part, tuple) else f".{part}")
        return ("..." if place > 0 else "") + "".join(reversed(parts)).lstrip(".") or "it"


class _Reader:
    """Shells first, then what cannot change, then what is in the shells."""

    def __init__(self, data: Mapping[str, Any], allowed: Allowed) -> None:
        self._allowed = allowed
        self._shapes = [self._known(shape) for shape in data["shapes"]]
        self._entries = data["entries"]
        self._made: list[Any] = [None] * len(self._entries)
        self._pending: set[int] = set()

    def read(self) -> Any:
        for place, entry in enumerate(self._entries):
            kind, thing, _ = self._shapes[entry[0]]
            if kind in UNCHANGING:
                self._pending.add(place)
            else:
                self._made[place] = self._shell(kind, thing, entry)
        while self._pending:
            self._finish(next(iter(self._pending)))
        for entry, made in zip(self._entries, self._made, strict=True):
            kind, thing, names = self._shapes[entry[0]]
            self._fill(kind, thing, made, entry, names)
        return self._made[0]

    def _known(self, shape: Mapping[str, Any]) -> tuple[str, Any, list[str]]:
        kind, name = shape["kind"], shape["class"]
        if kind == "object":
            cls = self._allowed.resolve(name)
            if not isinstance(cls, type) or not self._allowed.has(cls):
                raise NotPortableError(f"{name} is not made of attributes alone")
            if not {part[1:] for part in shape["names"] if part[:1] == "|"} <= set(slots_of(cls)):
                raise NotPortableError(f"{name} has no such slots")
            return kind, (cls, self._allowed.idle(cls)), shape["names"]
        if kind == "name":
            found = PLAIN_FACTORIES.get(name)
            return kind, self._allowed.resolve(name) if found is None else found, []
        return kind, name, shape["names"]

    def _shell(self, kind: str, thing: Any, entry: list[Any]) -> Any:
        match kind:
            case "object":
                return object.__new__(thing[0])
            case "name":
                return thing
            case "native":
                return self._allowed.native(thing, entry[1:])
            case "array":
                return decode(entry[1])
            case "list" | "set":
                return [] if kind == "list" else set()
            case "random":
                made = random.Random()
                made.setstate((3, tuple(entry[1].tolist()), entry[2]))
                return made
            case "deque":
                return deque(maxlen=entry[1])
        return MAPPINGS[kind]()

    def _finish(self, place: int) -> Any:
        """Of what cannot change: it holds others of its kind, and never itself."""
        if place not in self._pending:
            raise NotPortableError("a tuple that holds itself")
        self._pending.discard(place)
        entry = self._entries[place]
        values = [self._value(item) for item in entry[1:]]
        kind, _, names = self._shapes[entry[0]]
        if kind == "partial":
            function, rest, count = values[0], values[1:], int(names[0])
            self._made[place] = partial(function, *rest[:count], **dict(_pairs(rest[count:])))
        elif kind == "method":
            self._made[place] = _method_of(*values)
        else:
            self._made[place] = frozenset(values) if kind == "frozenset" else tuple(values)
        return self._made[place]

    def _value(self, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        if len(value) == 2:
            return int(value[1])
        place = value[0]
        if self._made[place] is None and self._shapes[self._entries[place][0]][0] in UNCHANGING:
            return self._finish(place)
        return self._made[place]

    def _fill(self, kind: str, thing: Any, made: Any, entry: list[Any], names: list[str]) -> None:
        match kind:
            case "object":
                for name, value in zip(names, entry[1:], strict=True):
                    if name[0] == "|":
                        object.__setattr__(made, name[1:], self._value(value))
                    elif name in thing[1]:
                        made.__dict__[name] = thing[1][name]()
                    else:
                        made.__dict__[name] = self._value(value)
            case "defaultdict":
                made.default_factory = self._value(entry[1])
                made.update(_pairs([self._value(item) for item in entry[2:]]))
            case "dict" | "OrderedDict" | "Counter":
                for key, value in _pairs([self._value(item) for item in entry[1:]]):
                    made[key] = value
            case "list":
                made.extend(self._value(item) for item in entry[1:])
            case "set":
                made.update(self._value(item) for item in entry[1:])
            case "deque":
                made.extend(self._value(item) for item in entry[2:])


def slots_of(cls: type) -> tuple[str, ...]:
    """Names under which what is in its slots can be got and set."""
    found = []
    for base in cls.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            hidden = name.startswith("__") and not name.endswith("__")
            if name not in ("__dict__", "__weakref__"):
                found.append(f"_{base.__name__.lstrip('_')}{name}" if hidden else name)
    return tuple(found)


def _pairs(parts: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(parts[::2], parts[1::2], strict=True))


def _method_of(owner: Any, name: str) -> Any:
    function = getattr(type(owner), name)
    if type(function) is not FunctionType:
        raise NotPortableError(f"{full_name(type(owner))} has no method {name}")
    return MethodType(function, owner)


def _is_key(key: Any) -> bool:
    return all(map(_is_key, key)) if type(key) is tuple else type(key) in KEYS


def _rank(key: Any) -> tuple[str, Any]:
    """Orders keys of several types."""
    if type(key) is tuple:
        return "tuple", tuple(map(_rank, key))
    return ("number", key) if isinstance(key, bool | int | float) else (type(key).__name__, key or "")
