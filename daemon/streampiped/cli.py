"""The command `streampiped`: the lean end of it.

The process that was started becomes the supervisor, which must stay small and import neither pydantic nor numpy nor
user code. Typer alone brings pydantic. So even the command line is understood in a child that is thrown away
(`commands.py`, in a fork of the launcher by `runtime/lent.py`, or of this process by `runtime/apart.py`); what comes
back is an exit code, a plan and how to run it, or a task on the state directory.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from streampiped.errors import ExitCode
from streampiped.runtime.apart import TIMEOUT_S, ApartError, run_apart
from streampiped.runtime.launch import Launch, execute_launcher
from streampiped.runtime.lent import NoLauncherError, discard, run_lent
from streampiped.runtime.preload import guess
from streampiped.topology import Plan

CHECK_S: Final = 75.0  # for all attempts to understand the command line: below the unit's TimeoutStartSec= of 90 s


def main() -> None:
    """The console script. Leaves with an `ExitCode`."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments ask for. Returns when the pipeline has stopped. A launcher that was executed for nothing
    dies with this process."""
    try:
        answer, early = _ask(arguments)
    except ApartError as error:
        # Not a finding about a key: the check itself could not end, so its traceback is what there is to say.
        print(f"the configuration could not be checked: {error}\n{error.trace}".rstrip(), file=sys.stderr)
        return ExitCode.FAILED if error.passing else ExitCode.CONFIG  # systemd tries again, or leaves it
    except KeyboardInterrupt:  # nothing has started, so there is nothing to drain
        return ExitCode.OK if "run" in arguments else ExitCode.FAILED
    if answer["task"] is not None:
        from streampiped.state_commands import perform  # it loads numpy, and never becomes the supervisor

        return perform(answer["task"])
    if answer["plan"] is None:
        return int(answer["code"])
    plan = Plan.from_dict(answer["plan"])
    try:
        from streampiped.start import run as supervise  # uvloop and the rest are not for `check`

        return supervise(
            plan,
            fresh=answer["fresh"],
            until_finished=answer["until_finished"],
            early=early,
            directories=(answer["state_dir"], answer["runtime_dir"]),
        )
    except KeyboardInterrupt:  # before the supervisor took the signal over: no stage has run
        return ExitCode.OK


def _ask(arguments: Sequence[str]) -> tuple[dict[str, Any], Launch | None]:
    """What `understand` says about the arguments, and the launcher, where there will be something to run."""
    if arguments[:1] == ["run"] and "--help" not in arguments:
        begun = time.monotonic()
        early = execute_launcher(guess(arguments))
        import streampiped.start  # noqa: F401  needed next, and the launcher imports for longer than we do

        try:
            return run_lent(early, arguments), replace(early, ready=True)
        except NoLauncherError:  # the supervisor will start another, and say what is wrong with it
            discard(early)
        return run_apart(understand, list(arguments), timeout=left(time.monotonic() - begun), keep_stdout=True), None
    return run_apart(understand, list(arguments), keep_stdout=True), None


def left(passed: float) -> float:
    """Seconds for the second attempt, when the first has taken `passed`.

    >>> left(0.5), left(60.0)
    (60.0, 15.0)
    """
    return max(0.0, min(TIMEOUT_S, CHECK_S - passed))


def understand(arguments: list[str]) -> dict[str, Any]:
    """In the child. Nearly all of its time is imports, which make no garbage; threads of a BLAS that multiplies nothing
    would only be started and ended."""
    gc.disable()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    from streampiped.commands import understand

    return understand(arguments)
