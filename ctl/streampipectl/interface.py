"""The command line as typer declares it: help, completion, and a clear word about mistakes.

Every command only says what was asked (a `Call`); `app.main` carries it out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Final, cast

import typer

from streampipectl import interface_model, values
from streampipectl.grammar import Call
from streampipectl.output import complain, say
from streampipectl.spoken import CHANGE_TIMEOUT, Json, RuntimeDir, Socket, Stages, Timeout, Wait, checked, parsed, said
from streampiped.errors import ExitCode

UsageError: Final = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])
"""Every mistake on a command line; of this class typer gives out a child alone."""

app = typer.Typer(
    help="Look at a running streampipe pipeline, and change it.",
    add_completion=False,  # app.py answers a shell in a third of the time that typer takes to be imported
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def parse(arguments: Sequence[str]) -> Call:
    """The call; SystemExit (0 after help, 2 after a mistake, which is said in a line) when there is none."""
    words = list(arguments)
    start = _behind_where(words)
    if "help" in words[start : start + (2 if words[start : start + 1] in (["dlq"], ["model"]) else 1)]:
        words.pop(words.index("help", start))
        words.append("--help")
    parsed.clear()
    try:
        _understand(words)
    except UsageError as error:
        context = error.ctx
        if context is not None and type(error).__name__ == "NoArgsIsHelpError":
            say(context.get_help())
        else:
            path = context.command_path if context is not None else "streampipectl"
            complain(f"{error.format_message().rstrip('.')} (`{path} -h` helps)")
        raise SystemExit(int(ExitCode.USAGE)) from None
    if not parsed:
        raise SystemExit(int(ExitCode.OK))
    return parsed.pop()


def _behind_where(words: Sequence[str]) -> int:
    """Where the command begins: behind the options that say which daemon is meant."""
    at = 0
    while at < len(words) and words[at].partition("=")[0] in ("--socket", "--runtime-dir"):
        at += 1 if "=" in words[at] else 2
    return at


def _understand(words: Sequence[str]) -> None:
    """`said`, help, or UsageError. A number below zero looks like an option; what is wrong with it is said of it."""
    try:
        app(args=list(words), prog_name="streampipectl", standalone_mode=False)
    except UsageError as error:
        below = [word for word in words if re.fullmatch(r"-[0-9.]+", word)]
        if not below or getattr(error, "option_name", None) != below[0][:2]:
            raise
        others = [word for word in words if word not in below]
        app(args=[*others, "--", *below], prog_name="streampipectl", standalone_mode=False)


@app.callback()
def everywhere(context: typer.Context, socket: Socket = None, runtime_dir: RuntimeDir = None) -> None:
    context.obj = {"socket": socket, "runtime_dir": runtime_dir}


@app.command()
def status(
    context: typer.Context,
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show every change, until Ctrl-C.")] = False,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """Show the pipeline and its processes. Exit code 3 unless every wanted one is ready."""
    said("status", context, socket, runtime_dir, as_json=as_json, watch=watch)


@app.command()
def top(
    context: typer.Context,
    interval: Annotated[
        str, typer.Option(parser=checked(values.interval), metavar="TIME", help="Between two frames.")
    ] = values.INTERVAL,
    once: Annotated[bool, typer.Option("--once", help="One frame, without control sequences.")] = False,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """Watch the pipeline live: flow, stages, epochs, events. q quits, ? helps."""
    said("top", context, socket, runtime_dir, interval=interval, once=once)


Force = Annotated[bool, typer.Option("--force", help="Wait for no barrier: back to the last epoch, as after a crash.")]


def _declare_change(verb: str, text: str) -> None:
    def run(
        context: typer.Context,
        stages: Stages = None,
        timeout: Timeout = CHANGE_TIMEOUT,
        wait: Wait = True,
        socket: Socket = None,
        runtime_dir: RuntimeDir = None,
    ) -> None:
        said(verb, context, socket, runtime_dir, stages=tuple(stages or ()), timeout=timeout, wait=wait)

    app.command(verb, help=text)(run)


_declare_change("start", "Start stages, or the whole pipeline.")
_declare_change("stop", "Stop stages, or the whole pipeline, in order. The daemon stays and answers.")


@app.command()
def restart(
    context: typer.Context,
    stages: Stages = None,
    force: Force = False,
    timeout: Timeout = CHANGE_TIMEOUT,
    wait: Wait = True,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """Restart stages, or all of them; the others go on."""
    options = {"stages": tuple(stages or ()), "force": force, "timeout": timeout, "wait": wait}
    said("restart", context, socket, runtime_dir, **options)


@app.command()
def reload(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check, and say what would change.")] = False,
    timeout: Timeout = CHANGE_TIMEOUT,
    wait: Wait = True,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """Read the configuration again. Applied as a whole, or refused as a whole with the reasons."""
    said("reload", context, socket, runtime_dir, dry_run=dry_run, timeout=timeout, wait=wait)


@app.command()
def report(
    context: typer.Context,
    as_json: Json = False,
    html: Annotated[
        str | None, typer.Option("--html", metavar="FILE", help="Write it as a page with charts; - is stdout.")
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option("--plot", metavar="FILE", help="Write its charts as PNG, with matplotlib; - is stdout."),
    ] = None,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """Say how good the model is. Exit code 0 good, 1 not better than guessing, 2 not enough data, 7 no file."""
    said("report", context, socket, runtime_dir, as_json=as_json, html=html, plot=plot)


@app.command()
def logs(
    context: typer.Context,
    stage: Annotated[str | None, typer.Argument(metavar="STAGE", help="Default: all processes.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new events, until Ctrl-C.")] = False,
    lines: Annotated[
        str | None,
        typer.Option(
            parser=checked(values.line_count),
            metavar="N",
            help=f"So many of the last events; default: {values.LOG_LINES}, or all since --since.",
        ),
    ] = None,
    level: Annotated[
        str, typer.Option(parser=checked(values.level), metavar="LEVEL", help="At least this level.")
    ] = values.LOG_LEVEL,
    since: Annotated[
        str | None,
        typer.Option(
            parser=checked(values.since),
            metavar="TIME",
            help="Not older than that: 30s, 10m, 2h, 1d ago, or a time such as 2024-05-31T14:30.",
        ),
    ] = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="What the log says: counts, templates, restarts, what was slow.")
    ] = False,
    as_json: Json = False,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """Show the last events of the log, or a summary. Of all of it, or since a time."""
    shown = {"lines": lines, "level": level, "since": since, "summary": summary, "as_json": as_json}
    said("logs", context, socket, runtime_dir, stage=stage, follow=follow, **shown)


@app.command()
def why(
    context: typer.Context,
    stage: Annotated[str, typer.Argument(metavar="STAGE")],
    as_json: Json = False,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """Say what a stage waits for, and what led there."""
    said("why", context, socket, runtime_dir, stage=stage, as_json=as_json)


@app.command()
def health(
    context: typer.Context,
    stage: Annotated[str | None, typer.Argument(metavar="STAGE", help="Default: the pipeline.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Ask only whether the daemon makes decisions.")] = False,
    ready: Annotated[bool, typer.Option("--ready", help="Ask only whether every wanted stage is ready.")] = False,
    as_json: Json = False,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """Say how well it is, and why. Exit code 0 when healthy, 3 when not, 5 when there is no answer."""
    said("health", context, socket, runtime_dir, stage=stage, live=live, ready=ready, as_json=as_json)


@app.command()
def metrics(
    context: typer.Context,
    output: Annotated[
        str | None, typer.Option("--output", metavar="FILE", help="Write it there, whole or not at all.")
    ] = None,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """Print everything measured in the text format of Prometheus."""
    said("metrics", context, socket, runtime_dir, output=output)


@app.command()
def checkpoint(
    context: typer.Context,
    keep: Annotated[
        str | None,
        typer.Option(parser=checked(values.checkpoint_name), metavar="NAME", help="Keep it under this name."),
    ] = None,
    timeout: Timeout = CHANGE_TIMEOUT,
    wait: Wait = True,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """Make an epoch now, a point that one can go back to."""
    said("checkpoint", context, socket, runtime_dir, keep=keep, timeout=timeout, wait=wait)


@app.command()
def checkpoints(
    context: typer.Context,
    as_json: Json = False,
    forget: Annotated[
        str | None,
        typer.Option(parser=checked(values.checkpoint_name), metavar="NAME", help="Keep it no longer."),
    ] = None,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """List the epochs that one can go back to. `streampiped restore` goes back to one of them."""
    said("checkpoints", context, socket, runtime_dir, as_json=as_json, forget=forget)


@app.command()
def completion(
    context: typer.Context,
    shell: Annotated[str, typer.Argument(parser=checked(values.shell), metavar="bash|zsh|fish")],
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """Print what teaches a shell to complete these commands."""
    said("completion", context, socket, runtime_dir, shell=shell)


@app.command()
def version(context: typer.Context, socket: Socket = None, runtime_dir: RuntimeDir = None) -> None:
    """Print the versions of this tool and of the daemon."""
    said("version", context, socket, runtime_dir)


dlq = typer.Typer(
    help="Look at dead letters, and decide about them. They are rows that a stage could not live with.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(dlq, name="dlq")

OfStage = Annotated[str | None, typer.Option("--stage", metavar="STAGE", help="Those of this stage alone.")]
Status = Annotated[
    str,
    typer.Option(parser=checked(values.letter_status), metavar="STATUS", help="dead, replayed, dropped or all."),
]
Letters = Annotated[list[int] | None, typer.Argument(parser=checked(values.letter_id), metavar="ID")]
Every = Annotated[bool, typer.Option("--all", help="Every dead one (of --stage).")]


@dlq.command("list")
def dlq_list(
    context: typer.Context,
    stage: OfStage = None,
    status: Status = "dead",
    limit: Annotated[
        str, typer.Option(parser=checked(values.letter_count), metavar="N", help="So many at most.")
    ] = str(values.LETTERS),
    as_json: Json = False,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """List them, the oldest first."""
    options = {"stage": stage, "status": status, "limit": limit, "as_json": as_json}
    said("dlq list", context, socket, runtime_dir, **options)


@dlq.command("show")
def dlq_show(
    context: typer.Context,
    letter: Annotated[int, typer.Argument(parser=checked(values.letter_id), metavar="ID")],
    as_json: Json = False,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """Show one: its record, the reason, the traceback."""
    said("dlq show", context, socket, runtime_dir, letter=letter, as_json=as_json)


@dlq.command("export")
def dlq_export(
    context: typer.Context,
    stage: OfStage = None,
    status: Status = "dead",
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """Print them whole, each a line of JSON."""
    said("dlq export", context, socket, runtime_dir, stage=stage, status=status)


@dlq.command("replay")
def dlq_replay(
    context: typer.Context,
    letters: Letters = None,
    every: Every = False,
    stage: OfStage = None,
    timeout: Timeout = CHANGE_TIMEOUT,
    wait: Wait = True,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """Give them to their stage once more, each exactly once."""
    options = {"letters": tuple(letters or ()), "every": every, "stage": stage, "timeout": timeout, "wait": wait}
    said("dlq replay", context, socket, runtime_dir, **options)


@dlq.command("drop")
def dlq_drop(
    context: typer.Context,
    letters: Letters = None,
    every: Every = False,
    stage: OfStage = None,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """Give them up for ever; they stay on the list as dropped."""
    said("dlq drop", context, socket, runtime_dir, letters=tuple(letters or ()), every=every, stage=stage)


app.command("predict")(interface_model.predict)
app.add_typer(interface_model.model, name="model")
