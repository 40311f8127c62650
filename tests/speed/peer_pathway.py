"""Pathway: a row per batch, committed one by one, and the stages called where its table comes out.

Functions of a table (`apply`) are called in any order of rows, also of different commits, and every record depends on
those before it. The output alone is in the order of time.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from speed.clock import Clock
from speed.work import Reached, Work, given, reached, stage, through

TITLE = "Pathway"


def run(work: Work, clock: Clock) -> Reached:
    os.environ.setdefault("PATHWAY_THREADS", "1")
    pw: Any = importlib.import_module("pathway")
    source, *chain = (stage(name, work) for name in work.stages)

    class Subject(pw.io.python.ConnectorSubject):  # type: ignore[misc]
        """Asks the generator."""

        def run(self) -> None:
            for batch in given(source):
                self.next(batch=pw.wrap_py_object(batch))
                self.commit()

    def arrived(key: Any, row: dict[str, Any], time: int, is_addition: bool) -> None:
        through(chain, row["batch"].value)

    schema = pw.schema_from_types(batch=pw.PyObjectWrapper)
    table = pw.io.python.read(Subject(), schema=schema, autocommit_duration_ms=None)
    pw.io.subscribe(table.select(batch=pw.this.batch), on_change=arrived)
    with clock.running():
        pw.run(monitoring_level=pw.MonitoringLevel.NONE)
    return reached(chain[-1])
