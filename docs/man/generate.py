"""The manual pages, made from the code: commands and options as typer declares them, exit codes from the
specification, the configuration as etc/streampipe.toml is rendered.

    .venv/bin/python docs/man/generate.py DIRECTORY

writes streampipectl.1, streampiped.8 and streampipe.toml.5. `systemd/install.py` runs it, so nothing generated is kept
in the repository. SOURCE_DATE_EPOCH sets the pages' date.
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
import time
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
for _directory in ("daemon", "ctl", "tests"):  # of this checkout, whatever is installed
    sys.path.insert(0, str(REPOSITORY / _directory))

import typer  # noqa: E402  after the path

from streampipectl import interface  # noqa: E402  after the path
from streampipectl.render_top import KEYS  # noqa: E402  after the path
from streampiped import commands  # noqa: E402  after the path
from support.example_config import render as example  # noqa: E402  after the path

VERSION: Final[str] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
CONTROL: Final = REPOSITORY / "docs" / "specs" / "control.md"
CONFIGURATION: Final = REPOSITORY / "docs" / "configuration.md"

WIDTH: Final = 78
WHERE: Final = "--socket", "--runtime-dir"
"""Options that stand with every command and are told once."""


# --- troff --------------------------------------------------------------------------------------------------------


def escaped(text: str) -> str:
    """Text that troff takes as it is, but for the beginning of a line (`guarded`)."""
    text = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    for character, name in (("…", "\\&..."), ("→", "\\(->"), ("µ", "\\(mc")):
        text = text.replace(character, name)
    return text


def guarded(line: str) -> str:
    """A dot or a quote at the beginning of a line would be a request."""
    return f"\\&{line}" if line.startswith((".", "'")) else line


def marked(text: str) -> str:
    """Text with `code` in bold, on lines of a readable length."""
    parts = escaped(text).split("`")
    whole = "".join(f"\\fB{part}\\fR" if n % 2 else part for n, part in enumerate(parts))
    return "\n".join(map(guarded, textwrap.wrap(whole, WIDTH, break_long_words=False, break_on_hyphens=False)))


def quoted(text: str) -> str:
    """An argument of a macro."""
    return '"' + escaped(text).replace('"', "\\(dq") + '"'


def page(name: str, section: int, about: str, body: Iterable[str]) -> str:
    stamp = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    date = time.strftime("%Y-%m-%d", time.gmtime(stamp))
    head = [
        f'.TH "{name.upper()}" {section} {date} "streampipe {VERSION}"',
        ".SH NAME",
        f"{escaped(name)} \\- {escaped(about)}",
    ]
    return "\n".join([*head, *body]) + "\n"


def paragraphs(*texts: str) -> Iterator[str]:
    for number, text in enumerate(texts):
        if number:
            yield ".PP"
        yield marked(text)


def item(term: str, text: str) -> list[str]:
    """A tagged paragraph. `term` is troff already."""
    return [".TP", term, marked(text) or "\\&"]


def items(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, text in pairs:
        yield from item(f"\\fB{escaped(term)}\\fR", text)


def code(text: str) -> Iterator[str]:
    yield from (".in +4n", ".nf")
    for line in text.strip("\n").split("\n"):
        line = line.replace("\\", "\\e").replace("-", "\\-")
        yield guarded(line) or "\\&"
    yield from (".fi", ".in")


# --- a command line -----------------------------------------------------------------------------------------------


def command_pages(root: Any, told: Collection[str] = ()) -> Iterator[str]:
    """A subsection for each command, those of groups by their whole name, without the options in `told`."""
    for name, command in root.commands.items():
        if hasattr(command, "commands"):
            for inner, each in command.commands.items():
                yield from command_page(f"{name} {inner}", each, told)
        else:
            yield from command_page(name, command, told)


def command_page(name: str, command: Any, told: Collection[str]) -> Iterator[str]:
    params = [param for param in command.params if not set(param.opts) & set(told)]
    usage = " ".join([f"\\fB{escaped(name)}\\fR", *(_usage(param) for param in params)])
    yield from (f".SS {quoted(name)}", usage, ".PP", marked(command.help or ""))
    for param in params:
        if param.param_type_name == "option":
            yield from option(param)


def option(param: Any) -> list[str]:
    """A tagged paragraph about an option, with its default."""
    value = f" \\fI{escaped(_metavar(param))}\\fR" if _metavar(param) else ""
    names = [*param.opts, *param.secondary_opts]
    term = ", ".join(f"\\fB{escaped(name)}\\fR{value}" for name in names)
    default = param.default
    text = (getattr(param, "help", None) or "").rstrip(".")
    told = f" (default: {default})" if isinstance(default, str | int) and not isinstance(default, bool) else ""
    return item(term, f"{text}{told}.")


def _usage(param: Any) -> str:
    value = f"\\fI{escaped(_metavar(param))}\\fR" if _metavar(param) else ""
    if param.param_type_name == "argument":
        text = f"{value}{' ...' if param.nargs == -1 else ''}"
        return text if param.required else f"[{text}]"
    name = f"\\fB{escaped(param.opts[0])}\\fR" + (f" {value}" if value else "")
    if param.secondary_opts:
        name += f" | \\fB{escaped(param.secondary_opts[0])}\\fR"
    return name if param.required else f"[{name}]"


def _metavar(param: Any) -> str:
    """Empty for a flag."""
    return "" if getattr(param, "is_flag", False) else str(param.metavar or param.name.upper())


def table_of(path: Path, heading: str) -> Iterator[tuple[str, str]]:
    """The first two columns of the first table below a heading of a page of the documentation."""
    text = path.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    for line in lines[2:]:  # a heading and a rule first
        first, second = (cell.strip() for cell in line.split(" | ")[:2])
        plain = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", second.removesuffix("|"))
        yield first.strip("|` "), plain.strip()


# --- the pages ----------------------------------------------------------------------------------------------------


def streampipectl() -> str:
    root: Any = typer.main.get_command(interface.app)
    return page("streampipectl", 1, "look at a running streampipe pipeline, and change it", _streampipectl(root))


def _streampipectl(root: Any) -> Iterator[str]:
    yield from (".SH SYNOPSIS", "\\fBstreampipectl\\fR [\\fIOPTION\\fR] \\fICOMMAND\\fR [\\fIARGUMENT\\fR ...]")
    yield ".SH DESCRIPTION"
    yield from paragraphs(
        "`streampipectl` asks a running `streampiped`(8) over its control socket. Who may open the socket may look, "
        "and root, the daemon's own user and those in `control.operators` of `streampipe.toml`(5) may change.",
    )
    yield ".SH OPTIONS"
    for param in root.params:
        yield from option(param)
    yield from items([("--help, -h", "What there is to say; also behind a command.")])
    yield ".SH COMMANDS"
    yield from command_pages(root, WHERE)
    yield ".SH KEYS OF TOP"
    yield from items(KEYS)
    yield ".SH EXIT STATUS"
    yield from items(table_of(CONTROL, "Exit codes"))
    yield ".SH ENVIRONMENT"
    yield from items(
        [
            ("STREAMPIPE_RUNTIME_DIR", "The daemon's runtime directory, without --runtime-dir."),
            ("NO_COLOR", "If set, to whatever, nothing is coloured."),
            ("COLUMNS", "The width of `top --once` where the output is no terminal."),
        ]
    )
    yield ".SH FILES"
    yield from items([("/run/streampipe/control.sock", "The control socket of the system's service.")])
    yield from _see_also(("streampiped", 8), ("streampipe.toml", 5), ("journalctl", 1), ("systemctl", 1))


def streampiped() -> str:
    root: Any = typer.main.get_command(commands.app)
    return page("streampiped", 8, "run an online-learning stream pipeline as a service", _streampiped(root))


def _streampiped(root: Any) -> Iterator[str]:
    yield from (".SH SYNOPSIS", "\\fBstreampiped\\fR \\fICOMMAND\\fR [\\fIOPTION\\fR ...]")
    yield ".SH DESCRIPTION"
    yield from paragraphs(
        "`streampiped` runs a pipeline of processes: records come in, are cleaned and scaled, stored, and a model "
        "learns from every one of them. It supervises the processes and their data: when one of them dies, all go "
        "back to snapshots that belong together, and every record counts exactly once.",
        "It is started by `systemctl start streampipe`, or by hand with `run`, and looked at with `streampipectl`(1).",
    )
    yield ".SH OPTIONS"
    for param in root.params:
        yield from option(param)
    yield from items([("--help", "What there is to say; also behind a command.")])
    yield ".SH COMMANDS"
    yield from command_pages(root)
    yield ".SH SIGNALS"
    yield from items(
        [("SIGTERM, SIGINT", "Let what is on its way arrive, commit the last epoch, stop the stages in order, leave.")]
    )
    yield ".SH EXIT STATUS"
    yield from items(
        [
            ("0", "It ran and was stopped, or what was asked for is done."),
            ("1", "It was tried and failed; `fsck`: there are findings."),
            ("2", "A mistake on the command line."),
            ("78", "A mistake in the configuration or the state directory. systemd does not start again on it."),
        ]
    )
    yield ".SH ENVIRONMENT"
    yield from items(
        [
            ("STATE_DIRECTORY, RUNTIME_DIRECTORY, LOGS_DIRECTORY", "As systemd sets them, see `systemd.exec`(5). A "
             "flag, or an entry of the configuration's [paths], wins."),
            ("NOTIFY_SOCKET, WATCHDOG_USEC", "As systemd sets them, see `sd_notify`(3)."),
        ]
    )  # fmt: skip
    yield ".SH FILES"
    yield from items([(str(commands.SYSTEM_CONFIG), "The configuration, without --config.")])
    yield from _see_also(("streampipectl", 1), ("streampipe.toml", 5), ("systemctl", 1))


def streampipe_toml() -> str:
    return page("streampipe.toml", 5, "configuration of streampipe", _streampipe_toml())


def _streampipe_toml() -> Iterator[str]:
    yield from (".SH SYNOPSIS", f"\\fI{escaped(str(commands.SYSTEM_CONFIG))}\\fR")
    yield ".SH DESCRIPTION"
    yield from paragraphs(
        "The configuration of `streampiped`(8) is one TOML file. What is left out has its default, and an empty file "
        "is a valid one. `streampiped check --config FILE` names everything that is wrong with a file.",
        "A stage is a table [stages.NAME]. As soon as there is one, only the stages that are named exist. Their names "
        "begin with a-z, have a-z, 0-9, _ and -, and at most 32 characters. Four keys are the pipeline's, for every "
        "stage; all others are options of its class:",
    )
    yield from items(table_of(CONFIGURATION, "Stages"))
    yield ".SH VALUES"
    yield from paragraphs("A number without its unit is refused where there is one.")
    yield from items(table_of(CONFIGURATION, "Values"))
    yield ".SH OPTIONS"
    yield from paragraphs("Each with its default, or with a form where there is none (unset).")
    yield from _options(example())
    yield ".SH EXAMPLE"
    yield from code(CONFIGURATION.read_text().partition("```toml\n")[2].partition("```")[0])
    yield from _see_also(("streampiped", 8), ("streampipectl", 1))


def _options(text: str) -> Iterator[str]:
    """Tables and keys of the rendered file: comments, then `[table]`, `key = value`, or the same behind a `#`."""
    words: list[str] = []
    for line in text.partition("\n\n")[2].split("\n"):
        plain = line.removeprefix("#")
        if found := re.fullmatch(r"\[+([\w.-]+)\]+", plain):
            yield f".SS {quoted(f'[{found[1]}]')}"
            if words:
                yield marked(" ".join(words))
            words = []
        elif found := re.fullmatch(r"([\w-]+) = (.+)", plain):
            unset = line.startswith("#") and found[2] in ('"..."', '["..."]', "1", "1.0", "{}")
            said, here, other = " ".join(words).partition("Here not the default, which is ")
            form = other.partition(":")[0] if here else "unset" if unset else found[2]
            yield from item(f"\\fB{escaped(found[1])}\\fR = {escaped(form)}", said)
            words = []
        elif line.startswith("# "):
            words.append(line[2:])
        elif line.startswith("## "):
            words.append(line[3:])
        else:
            words = []
        if words and words[-1].startswith("-" * 9):
            words.pop()  # a rule between two stages


def _see_also(*pages: tuple[str, int]) -> Iterator[str]:
    yield ".SH SEE ALSO"
    for number, (name, section) in enumerate(pages, 1):
        yield f".BR {escaped(name)} ({section}){',' if number < len(pages) else ''}"


PAGES: Final[Mapping[str, Any]] = {
    "streampipectl.1": streampipectl,
    "streampiped.8": streampiped,
    "streampipe.toml.5": streampipe_toml,
}


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: generate.py DIRECTORY")
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (directory / name).write_text(make())


if __name__ == "__main__":
    main()
