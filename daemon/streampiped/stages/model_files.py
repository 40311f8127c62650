"""The models of a trainer on the disk: parameters of the versions that are kept, and the registry's list.

    DIRECTORY/models/v00000012.npz     what the model had learned (learn/npz.py)
    DIRECTORY/models/v00000012.json    what it is, with the checksum of the former
    DIRECTORY/models/registry.jsonl    every version that ever was, a line each, only ever appended to

docs/specs/models.md is the contract. A file is there whole under its name or not at all; what is damaged all the same
is told by its checksum. Writing the same version again gives the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from streampiped.errors import StateError
from streampiped.learn.npz import from_npz, to_npz

FORMAT: Final = "streampipe-version/1"
LIST: Final = "registry.jsonl"


class ModelFiles:
    """Below `directory`, which is made at the first write. OSError when the disk refuses."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    # parameters

    def save(self, version: int, state: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a model; its `file`, `bytes` and `sha256`. `about`: JSON-able, for whoever finds the files. Nothing is
        left of what the disk refuses: a full one would be filled up with halves."""
        self._directory.mkdir(parents=True, exist_ok=True)
        data = to_npz(state)
        file = {"file": f"{_name(version)}.npz", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        text = json.dumps({"format": FORMAT, "version": version, **about, **file}, indent=1, sort_keys=True)
        is_new = version not in self.kept()
        try:
            self._write(f"{_name(version)}.npz", data)
            self._write(f"{_name(version)}.json", (text + "\n").encode())
        except OSError:
            if is_new:
                with contextlib.suppress(OSError):
                    self.remove(version)
            raise
        return file

    def load(self, version: int, sha256: str | None = None) -> dict[str, Any]:
        """The state that was saved. StateError, with the file's name, when it is not there, not whole, or (`sha256`)
        another one."""
        about = self.about(version)
        path = self._directory / f"{_name(version)}.npz"
        data = _read(path)
        found = hashlib.sha256(data).hexdigest()
        if found != about["sha256"] or (sha256 is not None and found != sha256):
            raise StateError(f"{path} is damaged: its SHA-256 is {found}, should be {sha256 or about['sha256']}")
        try:
            return from_npz(data)
        except StateError as error:
            raise StateError(f"{path}: {error}") from error

    def about(self, version: int) -> dict[str, Any]:
        """What stands beside the parameters. StateError as `load`."""
        path = self._directory / f"{_name(version)}.json"
        try:
            about = json.loads(_read(path))
            known = about["format"], about["version"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise StateError(f"{path} is damaged: {error!r}") from error
        if known != (FORMAT, version) or not isinstance(about.get("sha256"), str):
            raise StateError(f"{path} is of {known}, should be of {(FORMAT, version)}")
        return dict(about)

    def data(self, version: int) -> bytes:
        """The file itself, whole. StateError as `load`."""
        self.load(version)
        return _read(self._directory / f"{_name(version)}.npz")

    def kept_at(self, version: int) -> float | None:
        """When its parameters were written (seconds since 1970); None: they are not there."""
        with contextlib.suppress(OSError):
            return (self._directory / f"{_name(version)}.npz").stat().st_mtime
        return None

    def kept(self) -> set[int]:
        """Versions of which something is there."""
        with contextlib.suppress(FileNotFoundError):
            stems = {path.stem for path in self._directory.iterdir() if path.suffix in (".npz", ".json", ".tmp")}
            return {int(stem[1:9]) for stem in stems if stem[:1] == "v" and stem[1:].split(".")[0].isdecimal()}
        return set()

    def remove(self, version: int) -> None:
        """Its parameters, and what an interrupted write has left."""
        for path in sorted(self._directory.glob(f"{_name(version)}.*")):  # .json first: no promise without the file
            path.unlink(missing_ok=True)

    # the list

    def append(self, record: Mapping[str, Any]) -> None:
        """Behind everything that is on the list, durably; where the disk refuses, the list is as it was: behind half a
        line the next one could not be read."""
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / LIST
        is_new = not path.exists()
        with open(path, "ab", buffering=0) as file:
            whole = file.tell()
            try:
                _write_all(file.fileno(), _line(record))
                os.fsync(file.fileno())
            except OSError:
                os.truncate(path, whole)
                raise
        if is_new:
            _sync_directory(self._directory)

    def records(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Everything on the list that is whole, and what is wrong with the rest. A line that a power loss has torn off
        is cut off, so that the next one does not stand behind it."""
        path = self._directory / LIST
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return [], []
        whole = data[: data.rfind(b"\n") + 1]
        complaints = []
        if len(whole) < len(data):
            os.truncate(path, len(whole))
            complaints.append(f"{path} ended in the middle of a line, which is cut off")
        found = []
        for number, line in enumerate(whole.splitlines(), 1):
            record = _record(line)
            if record is None:
                complaints.append(f"{path}, line {number}, is damaged and left out")
            else:
                found.append(record)
        return found, complaints

    def _write(self, name: str, data: bytes) -> None:
        """Under its name it is whole, also after a power loss."""
        temporary = self._directory / f"{name}.tmp"
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._directory / name)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _sync_directory(self._directory)


def _name(version: int) -> str:
    return f"v{version:08d}"


def _line(record: Mapping[str, Any]) -> bytes:
    """JSON behind its CRC-32."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _record(line: bytes) -> dict[str, Any] | None:
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}") from error


def _write_all(fd: int, data: bytes) -> None:
    """A disk that is nearly full takes a part first, and then refuses."""
    while data:
        data = data[os.write(fd, data) :]


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
