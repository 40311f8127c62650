"""What of `report` becomes a file: the page and the picture."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from streampipectl.files import write_to
from streampipectl.output import complain
from streampiped.errors import ExitCode

STDOUT: Final = "-"


def write(
    answer: Mapping[str, Any], about: Mapping[str, Any], as_json: bool, html: str | None, plot: str | None
) -> int:
    """OK, or a complaint and REFUSED: 1 and 2 would be verdicts. Both are made before either is written."""
    if html == plot or (as_json and STDOUT in (html, plot)):
        complain("--json, --html and --plot need an output each")
        return int(ExitCode.USAGE)
    files: list[tuple[str, bytes]] = []
    if html is not None:
        from streampipectl.html_report import page

        files.append((html, page(answer, about, time.time()).encode()))
    if plot is not None:
        from streampipectl.plot_report import NoMatplotlibError, picture

        try:
            files.append((plot, picture(answer)))
        except NoMatplotlibError as error:
            complain(str(error))
            return int(ExitCode.REFUSED)
    for place, data in files:
        write_to(None if place == STDOUT else place, data)
    return int(ExitCode.OK)
