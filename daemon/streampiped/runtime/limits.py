"""What the kernel allows this process (getrlimit), held against what a pipeline needs."""

from __future__ import annotations

import errno
import resource
from typing import Final

DESCRIPTORS_WANTED: Final = 65_536  # far above a dozen per stage
_BLAMED: Final = {
    errno.EMFILE: ("RLIMIT_NOFILE", resource.RLIMIT_NOFILE),
    errno.EFBIG: ("RLIMIT_FSIZE", resource.RLIMIT_FSIZE),
}


def raise_descriptor_limit() -> None:
    """As many open files as the hard limit allows, up to DESCRIPTORS_WANTED."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_WANTED)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def shortage(descriptors: int, buffer_bytes: int) -> str | None:
    """The limit that is below what a pipeline needs, for people; None: none is. `descriptors`: open files of the
    supervisor; `buffer_bytes`: of memory that a stage shares, 0: none."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < descriptors:
        return (
            f"this pipeline needs {descriptors} open files, and RLIMIT_NOFILE allows {files}: raise it (LimitNOFILE= "
            "of the unit, ulimit -n)"
        )
    length, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if length != resource.RLIM_INFINITY and length < buffer_bytes:
        return (
            f"links.buffer_bytes is {buffer_bytes}, and RLIMIT_FSIZE allows {length} bytes: raise it (LimitFSIZE= of "
            "the unit, ulimit -f), or lower links.buffer_bytes"
        )
    return None


def told(error: OSError) -> str:
    """The error, and the limit that it comes from, where it is one of this process."""
    if error.errno not in _BLAMED:
        return str(error)
    name, limit = _BLAMED[error.errno]
    return f"{error.strerror}: {name} is {resource.getrlimit(limit)[0]}"
