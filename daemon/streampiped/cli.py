"""The command `streampiped`: check a configuration, run the pipeline in the foreground.

The process that runs is the supervisor and stays small: everything that knows the configuration's options or a
stage's class happens in a child (`runtime/apart.py`), and only the plan comes back. After `run` has its plan, this
process has imported neither pydantic nor numpy nor rich (a test holds that).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from streampiped import __version__
from streampiped.errors import ExitCode
from streampiped.runtime.apart import ApartError, run_apart
from streampiped.topology import Plan

SYSTEM_CONFIG: Final = Path("/etc/streampipe/streampipe.toml")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its hook needs rich, and a traceback in the journal should be a plain one
    help="The daemon of streampipe: an always-on online-learning pipeline.",
)

Config = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help=f"Default: {SYSTEM_CONFIG} if it is there.")
]
StateDir = Annotated[str | None, typer.Option(metavar="DIR", help="Instead of `state` in [paths].")]
RuntimeDir = Annotated[str | None, typer.Option(metavar="DIR", help="Instead of `runtime` in [paths].")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Forget the state of earlier runs and begin anew.")]
UntilFinished = Annotated[
    bool, typer.Option("--until-finished", help="End when every source has ended; else wait to be stopped.")
]


def main() -> None:
    """The console script. Leaves with an `ExitCode`."""
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"streampiped {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    pass


@app.command()
def check(config: Config = None, state_dir: StateDir = None, runtime_dir: RuntimeDir = None) -> None:
    """Validate the configuration without starting or leaving anything; every problem on stderr, exit 78."""
    file = _chosen(config)
    plan = _plan_of(file, state_dir, runtime_dir, keep_directories=False)
    print(f"OK {file}: {summary(plan)}")


@app.command()
def run(
    config: Config = None,
    state_dir: StateDir = None,
    runtime_dir: RuntimeDir = None,
    fresh: Fresh = False,
    until_finished: UntilFinished = False,
) -> None:
    """Run the pipeline in the foreground until SIGTERM or Ctrl-C, which drain it."""
    try:
        plan = _plan_of(_chosen(config), state_dir, runtime_dir, keep_directories=True)
    except KeyboardInterrupt:  # nothing has started, so there is nothing to drain
        raise typer.Exit(ExitCode.OK) from None
    from streampiped.supervisor import run as supervise  # uvloop and the rest are not for `check`

    raise typer.Exit(supervise(plan, fresh=fresh, until_finished=until_finished))


def summary(plan: Plan) -> str:
    """The pipeline in one line: `a -> b -> c` for a chain, else every stage with what it reads."""
    names = [spec.name for spec in plan.stages]
    if all(spec.inputs == (before,) for before, spec in zip(names, plan.stages[1:], strict=False)):
        graph = " -> ".join(names)
    else:
        graph = "; ".join(
            f"{' + '.join(spec.inputs)} -> {spec.name}" if spec.inputs else spec.name for spec in plan.stages
        )
    services = ", ".join(spec.name for spec in plan.services) or "none"
    return f'pipeline "{plan.pipeline}": {graph} (services: {services})'


def _chosen(config: Path | None) -> Path:
    if config is not None:
        return config
    if SYSTEM_CONFIG.exists():
        return SYSTEM_CONFIG
    print(f"no configuration: give --config FILE, or put one at {SYSTEM_CONFIG}", file=sys.stderr)
    raise typer.Exit(ExitCode.CONFIG)


def _plan_of(file: Path, state_dir: str | None, runtime_dir: str | None, *, keep_directories: bool) -> Plan:
    try:
        answer = run_apart(_load, str(file), state_dir, runtime_dir, keep_directories)
    except ApartError as error:
        # Not a finding about a key: the check itself could not end, so its traceback is what there is to say.
        print(f"{file}: the configuration could not be checked: {error}", error.trace, sep="\n", file=sys.stderr)
        raise typer.Exit(ExitCode.CONFIG) from None
    if answer["problems"]:
        print("\n".join(answer["problems"]), file=sys.stderr)
        raise typer.Exit(ExitCode.CONFIG)
    return Plan.from_dict(answer["plan"])


def _load(file: str, state_dir: str | None, runtime_dir: str | None, keep_directories: bool) -> dict[str, Any]:
    """Runs apart: the plan as plain data, or the problems as lines."""
    from streampiped.config import ConfigProblems, load

    try:
        plan = load(file, state_dir=state_dir, runtime_dir=runtime_dir, keep_directories=keep_directories)
    except ConfigProblems as found:
        return {"plan": None, "problems": [str(problem) for problem in found.problems]}
    return {"plan": plan.to_dict(), "problems": []}
