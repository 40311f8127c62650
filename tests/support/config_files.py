"""Configuration files for tests: written, loaded in this process, their problems as a table."""

from __future__ import annotations

from pathlib import Path

from streampiped import topology
from streampiped.config import ConfigProblems, Problem, load

SOURCE = 'class = "streampiped.stages.base:SourceStage"'
TRANSFORM = 'class = "streampiped.stages.base:Stage"'
SINK = 'class = "streampiped.stages.base:SinkStage"'
CHAIN = f"""
[stages.numbers]
{SOURCE}
[stages.scale]
{TRANSFORM}
input = "numbers"
[stages.store]
{SINK}
input = "scale"
"""
"""The smallest pipeline with every role. The classes of the contract are stages that do nothing."""


def written(directory: Path, text: str) -> Path:
    file = directory / "streampipe.toml"
    file.write_text(text)
    return file


def loaded(directory: Path, text: str, **kwargs: object) -> topology.Plan:
    """The plan of `text`, with state, sockets and logs below `directory`."""
    environ = {
        variable: str(directory / variable) for variable in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "LOGS_DIRECTORY")
    }
    return load(written(directory, text), **{"environ": environ, **kwargs})  # type: ignore[arg-type]


def problems(directory: Path, text: str, **kwargs: object) -> list[Problem]:
    """What is wrong with `text`; nothing when it is accepted."""
    try:
        loaded(directory, text, **kwargs)
    except ConfigProblems as found:
        return list(found.problems)
    return []
