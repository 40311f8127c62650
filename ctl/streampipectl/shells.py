"""Completion scripts for bash, zsh and fish: `streampipectl completion SHELL`.

They hand every TAB to `complete.py`, by `grammar.COMPLETION_VARIABLE`, and know themselves only what is said about
commands and options, which takes typer a fifth of a second to tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from string import Template
from typing import Any, Final

from streampipectl.grammar import COMPLETION_VARIABLE

BASH: Final = r"""# bash completion for streampipectl, printed by `streampipectl completion bash`
_streampipectl() {
    mapfile -t COMPREPLY < <($variable=bash "$$1" "$${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    local kind=$${COMPREPLY[0]-}
    COMPREPLY=("$${COMPREPLY[@]:1}")
    COMPREPLY=("$${COMPREPLY[@]%%$$'\t'*}")
    case $$kind in
        files) compopt -o default ;;
        directories) compopt -o dirnames ;;
    esac
}
complete -F _streampipectl streampipectl
"""
ZSH: Final = r"""#compdef streampipectl
# zsh completion for streampipectl, printed by `streampipectl completion zsh`
_streampipectl() {
    local -A about=(
$about
    )
    local -a lines choices
    local line word text
    lines=("$${(@f)$$($variable=zsh $$words[1] "$${(@)words[2,CURRENT]}" 2>/dev/null)}")
    case $$lines[1] in
        files) _files; return ;;
        directories) _files -/; return ;;
    esac
    for line in "$${(@)lines[2,-1]}"; do
        word=$${line%%$$'\t'*} text=$${line#*$$'\t'}
        choices+=("$${word//:/\\:}$${$${text:-$${about[$$word]}}:+:$${text:-$${about[$$word]}}}")
    done
    _describe -V streampipectl choices
}
if [[ $$funcstack[1] == _streampipectl ]]; then
    _streampipectl "$$@"
else
    compdef _streampipectl streampipectl
fi
"""
FISH: Final = r"""# fish completion for streampipectl, printed by `streampipectl completion fish`
function __streampipectl_about
    switch $$argv[1]
$about
    end
end
function __streampipectl
    set -l typed (commandline -opc) (commandline -ct)
    set -l lines ($variable=fish $$typed[1] $$typed[2..-1] 2>/dev/null)
    switch "$$lines[1]"
        case files
            __fish_complete_path (commandline -ct)
        case directories
            __fish_complete_directories (commandline -ct)
        case '*'
            for line in $$lines[2..-1]
                set -l parts (string split -m 1 \t -- $$line)
                set -l about $$parts[2]
                test -n "$$about"; or set about (__streampipectl_about $$parts[1])
                printf '%s\t%s\n' $$parts[1] "$$about"
            end
    end
end
complete -c streampipectl -f -k -a '(__streampipectl)'
"""


def script(shell: str) -> str:
    """The text to be evaluated, or installed where the shell looks for it."""
    text, entry = {"bash": (BASH, ""), "zsh": (ZSH, "        {word} {about}"), "fish": (FISH, FISH_CASE)}[shell]
    quoted = _fish if shell == "fish" else _posix
    about = "\n".join(entry.format(word=quoted(word), about=quoted(said)) for word, said in abouts().items())
    return Template(text).substitute(variable=COMPLETION_VARIABLE, about=about if entry else "")


FISH_CASE: Final = "        case {word}\n            echo {about}"


def abouts() -> Mapping[str, str]:
    """Command or option -> its help, the first sentence of it; the first of several."""
    found: dict[str, str] = {}
    for word, text in _helps():
        if text:
            found.setdefault(word, " ".join(text.split()).partition(". ")[0].rstrip("."))
    return found


def _helps() -> Iterator[tuple[str, str]]:
    import typer

    from streampipectl import interface

    commands: list[Any] = [typer.main.get_command(interface.app)]
    for command in commands:
        commands += getattr(command, "commands", {}).values()
    for command in commands[1:]:
        yield command.name, command.help or ""
    for command in commands:
        for param in command.params:
            for name in (*param.opts, *param.secondary_opts):
                if name.startswith("-"):
                    yield name, getattr(param, "help", None) or ""
    yield "--help", "Show what can be said"


def _posix(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
