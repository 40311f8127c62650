"""A manifest: what an epoch consists of. docs/specs/snapshots.md is the contract.

JSON, so that people can read it. What later versions added is read with a default when it is missing: a state directory
lives longer than the program that made it.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from streampiped.errors import StateError

FORMAT: Final = 1
EPOCH_FILE: Final = re.compile(
    r"e(?P<epoch>\d{8,})\.(?:(?P<manifest>manifest)(?P<aside>\.damaged|\.discarded)?|g\d+\.(?P<stage>.+)\.snap|burned)"
    r"(?P<temporary>\.tmp)?"
)
"""Every file that belongs to an epoch, half-written ones too."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A committed epoch. `parts`: stage -> (file name, bytes, CRC-32). `shape`: stage -> class. `retractable`: source
    or sink -> whether it can go back to an older epoch. `positions`: source -> records given since the stream began.
    `changes`: the commands that change state, applied directly behind the epoch's barrier and again by every restore
    from it. `seconds`: from the request of the epoch to its commit. `at`: of the commit, Unix time. What an older
    version did not write is None or empty."""

    epoch: int
    generation: int
    finished: bool
    parts: dict[str, tuple[str, int, int]]
    shape: dict[str, str]
    at: float | None = None
    seconds: float | None = None
    positions: dict[str, int] = field(default_factory=dict)
    changes: tuple[dict[str, Any], ...] = ()
    retractable: dict[str, bool] = field(default_factory=dict)

    @property
    def unretractable(self) -> list[str]:
        """The sources and sinks that cannot go back. One that an older version did not tell of can."""
        return [name for name, can in self.retractable.items() if not can]


def manifest_name(epoch: int) -> str:
    return f"e{epoch:08d}.manifest"


def snapshot_name(stage: str, generation: int, epoch: int) -> str:
    return f"e{epoch:08d}.g{generation}.{stage}.snap"


def encode(manifest: Manifest) -> bytes:
    """The manifest's file. `checksum` covers the values, not the layout."""
    body = {"format": FORMAT, **asdict(manifest)}
    return json.dumps({**body, "checksum": _checksum(body)}, indent=1).encode()


def decode(data: bytes, epoch: int) -> Manifest:
    """What `encode` was given; StateError (without a path) when it is not whole, or not of this epoch."""
    try:
        body = json.loads(data)
        checksum = body.pop("checksum", None)
        faults = list(_faults(body, checksum, epoch))
        if not faults:
            return _manifest(body)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        faults = [f"{type(error).__name__}: {error}"]
    raise StateError(f"not a manifest of format {FORMAT}: {'; '.join(faults)}")


def _checksum(body: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())


def _faults(body: dict[str, Any], checksum: int | None, epoch: int) -> Iterator[str]:
    if body["format"] != FORMAT:
        yield f"format {body['format']}"
    if checksum is not None and checksum != _checksum(body):  # manifests of early versions have none
        yield f"checksum {_checksum(body):08x}, it says {checksum:08x}"
    if body["epoch"] != epoch:
        yield f"of epoch {body['epoch']}"
    if body["parts"].keys() != body["shape"].keys() or not body["parts"]:
        yield f"parts of {sorted(body['parts'])}, shape of {sorted(body['shape'])}"
    for file, *_ in body["parts"].values():
        match = EPOCH_FILE.fullmatch(file)
        if match is None or "/" in file or int(match["epoch"]) != epoch:
            yield f"{file!r} is not the name of a snapshot of epoch {epoch}"


def _manifest(body: dict[str, Any]) -> Manifest:
    return Manifest(
        epoch=int(body["epoch"]),
        generation=int(body["generation"]),
        finished=bool(body["finished"]),
        parts={name: (str(p[0]), int(p[1]), int(p[2])) for name, p in body["parts"].items()},
        shape={name: str(klass) for name, klass in body["shape"].items()},
        at=_number(body.get("at")),
        seconds=_number(body.get("seconds")),
        positions={name: int(position) for name, position in body.get("positions", {}).items()},
        changes=tuple(dict(change) for change in body.get("changes", ())),
        retractable={name: bool(can) for name, can in body.get("retractable", {}).items()},
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
