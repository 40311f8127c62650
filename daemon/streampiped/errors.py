"""The named failures of the outer world. A wrong program asserts instead.

Every class says who is expected to handle it. Exit codes of both programs live here too, because they are part of
the same contract (docs/specs/control.md).
"""

from __future__ import annotations

import errno
from enum import IntEnum
from typing import Final


class ExitCode(IntEnum):
    """Exit codes of `streampipectl`; `streampiped` uses OK, FAILED, USAGE and CONFIG."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3  # as `systemctl status`: not running, or a wanted stage is not ready
    NO_SUCH_STAGE = 4
    UNREACHABLE = 5  # the daemon cannot be reached for a change
    NOT_PERMITTED = 6
    REFUSED = 7  # refused by the present state
    TIMED_OUT = 8  # still going on server-side
    PROTOCOL = 9
    CONFIG = 78  # EX_CONFIG of sysexits.h; systemd must not restart on it


class StreampipeError(Exception):
    """Base of everything raised on purpose."""


class FrameError(StreampipeError):
    """Bytes on a link are not a frame of this version; the shell answers with a reset of the generation."""


class SchemaError(FrameError):
    """A schema that makes no frame: no batch of it can be sent, however few rows it has."""


class OutputError(StreampipeError):
    """What a stage gave is no batch of this pipeline; the stage fails as if `process` had raised."""


class StateError(StreampipeError):
    """A snapshot or state directory cannot be used as it is; the message names the file and what would be right."""


class UnknownVersionError(StateError):
    """Of a model: there is none, or it is kept no longer; the message says what there is."""


class StateBusyError(StateError):
    """Another daemon holds the state directory. It may be about to leave: worth another try, unlike the others."""


class StorageError(StreampipeError):
    """The disk refuses (full, read-only, an I/O error) and nobody is dead: worth another try. A sink that raises it has
    dropped what was not prepared and takes nothing until the next `rollback`."""


SHORT: Final = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""A disk or a machine that is short of something now."""


def refuse_when_short(error: BaseException, where: str) -> None:
    """StorageError for an error that says nothing about what was asked for, and may be gone the next time."""
    if isinstance(error, OSError) and error.errno in SHORT:
        place = f" ({error.filename})" if error.filename else ""
        raise StorageError(f"{where}: {error.strerror}{place}") from error


class OptionError(StreampipeError):
    """An option is valid by its type and still impossible (a file that is not there, a column nobody has)."""


class SourceError(StreampipeError):
    """A source cannot be read; the stage fails and is restarted with back-off."""


class RpcError(StreampipeError):
    """A MessagePack-RPC call was answered with an error. `code` is an `ExitCode` as an int."""

    def __init__(self, message: str, code: int = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = int(code)
