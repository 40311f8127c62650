"""`streampiped restore` and `streampiped fsck`: the state directory in an operator's hands, while no daemon runs.

Run in the process that was started, which has a terminal and all the time of the world, unlike the throw-away child in
which the command line was understood (`cli.py`). It will never be a supervisor, so it may load what it likes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streampiped.decisions import check_shape
from streampiped.errors import ExitCode, StateBusyError, StateError
from streampiped.runtime.snapshots import Damage, Manifest, StateDirectory
from streampiped.runtime.state_check import Finding, inspect, look_over, mend
from streampiped.sink_memory import cautions
from streampiped.topology import Plan


def perform(task: Mapping[str, Any]) -> int:
    """What `commands.py` made of the command line; an exit code."""
    try:
        if task["verb"] == "restore":
            return restore(Plan.from_dict(task["plan"]), task["wanted"], sure=task["yes"])
        return fsck(Path(task["state_dir"]), task["pipeline"], repair=task["repair"], as_json=task["json"])
    except (StateError, OSError) as error:
        print(f"streampiped: {error}", file=sys.stderr)
        return ExitCode.FAILED if isinstance(error, StateBusyError) else ExitCode.CONFIG
    except KeyboardInterrupt:
        print("\nnothing more was done", file=sys.stderr)
        return ExitCode.FAILED


# restore


def restore(plan: Plan, wanted: str, *, sure: bool) -> int:
    """Make the epoch `wanted` (a number or a name) what the next start restores. `sure`: do not ask."""
    state = StateDirectory(Path(plan.paths.state), plan.pipeline, create=False)
    try:
        manifest = _chosen(state, wanted)
        check_shape(plan, manifest)
        newer = [row for row in state.checkpoints(time.time()) if row["epoch"] > manifest.epoch]
        print(f"epoch {manifest.epoch} is whole{_positions(manifest.positions)}")
        if not newer:
            print("it is the newest already; there is nothing to do")
            return ExitCode.OK
        for line in _consequences(plan, manifest, newer):
            print(line)
        if not sure and not _agreed(len(newer)):
            return ExitCode.FAILED if sys.stdin.isatty() else ExitCode.USAGE
        state.make_newest(manifest.epoch)
        print(f"done: the next start restores epoch {manifest.epoch}")
        return ExitCode.OK
    finally:
        state.close()


def _chosen(state: StateDirectory, wanted: str) -> Manifest:
    """StateError when there is no such epoch, or not a whole one."""
    there = state.store.committed()
    epoch = int(wanted) if wanted.isdecimal() else state.kept().get(wanted)
    if epoch is None or epoch not in there:
        names = [f"{name} (epoch {number})" for name, number in state.kept().items()]
        raise StateError(
            f"{state.root}: no epoch {wanted!r}; there are {', '.join(map(str, there)) or 'none'}; "
            f"kept by name: {', '.join(names) or 'none'}"
        )
    found = inspect(state, epoch)
    if isinstance(found, Damage):
        raise StateError(f"epoch {epoch} cannot be restored: {found}")
    return found


def _consequences(plan: Plan, manifest: Manifest, newer: list[dict[str, Any]]) -> list[str]:
    epoch = manifest.epoch
    lines = ["this discards for good:"]
    for row in newer:
        names = f", kept as {', '.join(row['names'])}" if row["names"] else ""
        damage = "" if row["whole"] else ", damaged"
        lines.append(f"  epoch {row['epoch']}, {_ago(row['age'])} old{_positions(row['positions'])}{names}{damage}")
    lines.append(f"on the next start every source goes on from where it was at epoch {epoch},")
    lines.append("and every sink takes back what it has shown of later epochs.")
    exceptions = cautions(plan, epoch)
    for spec in plan.stages:
        if spec.role == "source" and not (spec.retractable and manifest.retractable.get(spec.name, True)):
            exceptions.append(f"{spec.name}: cannot go back; records after epoch {epoch} may be missing")
    return lines + [f"NOT EXACT: {text}" for text in exceptions]


def _agreed(epochs: int) -> bool:
    if not sys.stdin.isatty():
        print("not done: standard input is no terminal to ask at; say --yes", file=sys.stderr)
        return False
    answer = input(f"discard {epochs} epoch{'s' if epochs > 1 else ''}? [y/N] ").strip().lower()
    if answer not in ("y", "yes"):
        print("not done", file=sys.stderr)
        return False
    return True


def _positions(positions: Mapping[str, int]) -> str:
    return "".join(f", {source} at record {position}" for source, position in positions.items())


def _ago(seconds: float) -> str:
    """An age for people: its largest unit, rounded down.

    >>> _ago(59.9), _ago(7300), _ago(200_000)
    ('59 s', '2 h', '2 d')
    """
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


# fsck


def fsck(root: Path, pipeline: str | None, *, repair: bool, as_json: bool) -> int:
    """Look the directory over and say what is wrong; with `repair`, mend what can be mended."""
    state = StateDirectory(root, pipeline, create=False)
    try:
        findings = look_over(state)
        if repair:
            mend(state, findings)
            consequences = [f for f in look_over(state) if f.mendable]  # a name of an epoch that was just put aside
            mend(state, consequences)
            findings += consequences
        if as_json:
            print(json.dumps([_as_data(finding, repair) for finding in findings], indent=1))
        else:
            _tell(root, findings, len(state.store.committed()), repair)
        return ExitCode.FAILED if findings else ExitCode.OK
    finally:
        state.close()


def _as_data(finding: Finding, repaired: bool) -> dict[str, Any]:
    return {
        "file": str(finding.file),
        "problem": finding.problem,
        "remedy": finding.remedy.name.lower(),
        "repaired": repaired and finding.mendable,
    }


def _tell(root: Path, findings: list[Finding], epochs: int, repaired: bool) -> None:
    for finding in findings:
        intent = "repaired" if repaired and finding.mendable else "repair would" if finding.mendable else "repair does"
        print(f"{finding.file}: {finding.problem}\n  {intent}: {finding.remedy.value}")
    left = sum(not (repaired and finding.mendable) for finding in findings)
    word = "clean" if not left else f"{left} finding{'s' if left > 1 else ''}"
    print(f"{root}: {epochs} committed epoch{'s' if epochs != 1 else ''}; {word}")
