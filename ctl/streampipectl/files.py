"""A file that is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from typing import Final

from streampiped.errors import ExitCode, RpcError

FILE_MODE: Final = 0o644  # whatever the umask is: who reads it often runs as somebody else


def write_whole(place: str, data: bytes) -> None:
    """By a rename; OSError when it cannot be. The name before it has no ending that anybody looks for. A link stays
    one, and what is no file is written to: a rename would put a file where /dev/null was."""
    if os.path.isdir(place):
        raise IsADirectoryError(21, "is a directory", place)
    if _is_no_file(place):
        with open(os.open(place, os.O_WRONLY), "wb") as device:
            device.write(data)
        return
    place = os.path.realpath(place)
    directory, name = os.path.split(place)
    fresh = os.path.join(directory, f".{name[:200]}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)  # of one that was killed here and had our pid
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
            os.fchmod(file.fileno(), FILE_MODE)
            file.write(data)
        os.replace(fresh, place)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise


def write_to(place: str | None, data: bytes) -> None:
    """Into a file, or to stdout (None). RpcError REFUSED when the file cannot be written."""
    if place is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        write_whole(place, data)
    except OSError as error:
        raise RpcError(complaint(place, error), ExitCode.REFUSED) from None


def _is_no_file(place: str) -> bool:
    """A device, a pipe, a socket, or a link to one, as /dev/stdout often is."""
    with contextlib.suppress(OSError):
        return not stat.S_ISREG(os.stat(place).st_mode)
    return False


def complaint(place: str, error: OSError) -> str:
    """Why it cannot be written, and what of the path is to blame."""
    directory = os.path.dirname(os.path.abspath(place))
    if isinstance(error, FileNotFoundError):
        return f"{place}: there is no directory {directory}"
    if isinstance(error, PermissionError):
        return f"{place}: no permission to write in {directory}"
    return f"{place}: {error.strerror or error}"
