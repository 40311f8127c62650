"""Templates: lines of a log that say the same about different objects. Pure.

Two steps. *Masking*: what is a number, a path or quoted text by its looks becomes `<n>`, `<path>`, `<text>`. *Mining*
of free text (what a program prints, what an exception says): lines that agree in most of the words that are left are
one template, and where they differ it has `<*>`. The mining is Drain's (P. He et al., Drain: An Online Log Parsing
Approach with Fixed Depth Tree, ICWS 2017); docs/decisions/templates.md says what is our own, and why.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import eq
from typing import Final

TEXT_CHARS_MAX: Final = 1000  # of a line looked at for its template; what comes later rarely tells lines apart
TEMPLATE_CHARS_MAX: Final = 200
CHILDREN_MAX: Final = 100  # first words told apart per length, as in the paper; lines with others share one leaf
ALIKE: Final = 0.6
"""Share of the words that must agree. The paper has 0.5 with numbers among the words; without these it joins `assigned
to` with `revoked from` (tests/stages/test_log_templates.py)."""
SURE_WORDS: Final = 3
"""Lines that differ in their first word alone are one template when at least so many others agree."""
COMPARED_MAX: Final = 100  # templates that a line is compared with, those seen last: a storm of lines that are all
# different costs 0.2 ms for each, and not 5
WILD: Final = "<*>"
TRACEBACK: Final = "Traceback (most recent call last)"

_VARYING = re.compile(
    r"""(?P<text>"[^"\n]*"|(?<!\w)'[^'\n]*'(?!\w))"""
    r"|(?P<url>\b[a-z][a-z0-9+.-]*://[^\s\"'<>,;]+)"
    r"|(?P<path>(?<![\w.])~?(?:/[\w.@+-]+)+/?)"
    r"|(?P<time>\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?(?!\w))"
    r"|(?P<addr>(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?(?![\w.]\d)"
    r"|(?<![\w:])(?:[0-9a-fA-F]{1,4}:){3,7}[0-9a-fA-F]{1,4}\b|(?<![\w:])(?:[0-9a-fA-F]{1,4}:)*:(?::?[0-9a-fA-F]{1,4})+\b)"
    r"|(?P<hex>\b0[xX][0-9a-fA-F]+\b|\b(?=[a-fA-F-]*\d)(?=[\d-]*[a-fA-F])[0-9a-fA-F]{8,}(?:-[0-9a-fA-F]{4,})*\b)"
    r"|(?P<n>(?<![A-Za-z_0-9])[-+]?\d+(?:[.,:]\d+)*(?:[eE][-+]?\d+)?)"
)
_MASK = re.compile(r"<(?:text|url|path|time|addr|hex|n|\*)>")
_KEPT = re.compile(r"(?:\w+\.)*[A-Z]\w*(?:Error|Exception|Warning|Exit|Interrupt)\W*|SIG[A-Z]+\W*|\w+:<n>:?")
"""Words that say what happened: a ValueError and a KeyError, or two places in a program, are never one template."""


def template_of(text: str) -> str:
    """The text with its varying parts masked.

    >>> template_of("restart in 0.20 s (3 in the last 60 s)")
    'restart in <n> s (<n> in the last <n> s)'
    >>> template_of('cannot open "/var/lib/x": errno 28 at 0x7f3a, peer 10.0.0.7:443')
    'cannot open <text>: errno <n> at <hex>, peer <addr>'
    """
    masked = _VARYING.sub(lambda found: f"<{found.lastgroup}>", essence(text)[:TEXT_CHARS_MAX])
    return masked[:TEMPLATE_CHARS_MAX]


def essence(text: str) -> str:
    """What of a text of several lines tells what it is about: the first line and, of a traceback, the last.

    >>> essence("Traceback (most recent call last):\\n  File 'x', line 1\\nValueError: x")
    'ValueError: x'
    """
    first, newline, rest = text.strip("\n").partition("\n")
    if not newline or TRACEBACK not in text:
        return first
    last = rest.strip().rpartition("\n")[2].strip()
    if first.startswith(TRACEBACK):
        return last
    return first if first.endswith(last) else f"{first} ... {last}"


@dataclass(slots=True)
class Template:
    """`first`: the first word by which the tree finds it, WILD where it may be any; None: the text is only masked, and
    the template is all of it."""

    id: int
    stage: str
    event: str
    words: tuple[str, ...]
    first: str | None

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def leaf(self) -> tuple[str, str, int, str]:
        return (self.stage, self.event, len(self.words) if self.first is not None else 0, self.first or self.words[0])


class Miner:
    """Every template that is known, at most `templates_max`; that of the line that is the longest ago goes first.

    A function of the lines seen, whatever their division into chunks: rebuilt from its templates, in the order in
    which they were last seen, it goes on as if it had never been away.
    """

    def __init__(self, templates_max: int, known: Iterable[Template] = (), made: int = 0) -> None:
        """`known`: the longest unseen first. `made`: templates there have ever been; numbers are not given twice."""
        self.made = made
        self._max = templates_max
        self._known: OrderedDict[int, Template] = OrderedDict()
        self._leaves: dict[tuple[str, str, int, str], dict[int, Template]] = {}
        self._firsts: dict[tuple[str, str, int], dict[str, int]] = {}
        for template in known:
            self._keep(template)

    def __len__(self) -> int:
        return len(self._known)

    def see(self, stage: str, event: str, text: str, *, free: bool) -> tuple[Template, list[Template]]:
        """The template of a line, and those that were forgotten for it. `free`: text that is to be mined."""
        masked = template_of(text)
        words = tuple(masked.split()) if free else (masked,)
        if not words:
            words, free = ("",), False
        first = self._first(stage, event, words) if free else None
        template = Template(self.made + 1, stage, event, words, first)
        found = self._nearest(template) or self._sibling(template)
        if found is None:
            self.made += 1
            self._keep(template)
            return template, self.forget()
        if found.words != words:
            found.words = tuple(map(_merged, found.words, words))
        self._known.move_to_end(found.id)
        leaf = self._leaves[found.leaf]
        leaf[found.id] = leaf.pop(found.id)  # the last seen is the last, as in `_known`, and so after a rebuild
        return found, []

    def _first(self, stage: str, event: str, words: Sequence[str]) -> str:
        first = _key(words[0]) or words[0]
        if any(char.isdigit() for char in first) or _MASK.search(first):
            return WILD
        told_apart = self._firsts.get((stage, event, len(words)), {})
        return first if first in told_apart or len(told_apart) < CHILDREN_MAX else WILD

    def _nearest(self, line: Template) -> Template | None:
        """The template of the line's leaf that is most alike; of equals the oldest."""
        leaf = self._leaves.get(line.leaf, {}).values()
        if line.first is None:
            return next(iter(leaf), None)
        # alike() is 10 times dearer than counting equal words, which bounds it: a key that is equal counts half
        least = ALIKE * len(line.words) - 0.5 * sum("=" in word for word in line.words)
        near = (t for t in islice(reversed(leaf), COMPARED_MAX) if sum(map(eq, t.words, line.words)) >= least)
        best = max(((alike(t.words, line.words), -t.id, t) for t in near), default=None)
        return best[2] if best is not None and best[0] >= ALIKE else None

    def _sibling(self, line: Template) -> Template | None:
        """A template of another leaf that differs in its first word alone, from now on WILD: some statements begin
        with what varies. This is not in the paper."""
        if line.first is None or _KEPT.fullmatch(line.words[0]) or "=" in line.words[0]:
            return None
        siblings = (t for t in islice(reversed(self._known.values()), COMPARED_MAX) if t.leaf[:3] == line.leaf[:3])
        for template in siblings:
            if template.first is not None and _differ_at_first(template.words, line.words):
                self._drop(template)
                template.first = WILD
                self._keep(template)
                return template
        return None

    def _keep(self, template: Template) -> None:
        self._known[template.id] = template
        self._leaves.setdefault(template.leaf, {})[template.id] = template
        if template.first not in (None, WILD):
            firsts = self._firsts.setdefault(template.leaf[:3], {})
            firsts[template.leaf[3]] = firsts.get(template.leaf[3], 0) + 1

    def _drop(self, template: Template) -> None:
        key = template.leaf
        del self._known[template.id]
        del self._leaves[key][template.id]
        if not self._leaves[key]:
            del self._leaves[key]
        if template.first not in (None, WILD):
            firsts = self._firsts[key[:3]]
            firsts[key[3]] -= 1
            if not firsts[key[3]]:
                del firsts[key[3]]
            if not firsts:
                del self._firsts[key[:3]]

    def forget(self) -> list[Template]:
        """Drop what is too many, and say which; `see` does. After a rebuild there may be many."""
        gone = []
        while len(self._known) > self._max:
            gone.append(next(iter(self._known.values())))
            self._drop(gone[-1])
        return gone


def alike(template: Sequence[str], line: Sequence[str]) -> float:
    """The share of the line's words that the template has at the same place. Masks are no words: that both lines have
    a number somewhere says nothing. 0 when a word that says what happened differs.

    >>> alike("took <n> s".split(), "took <n> s".split()), alike("loss <n>".split(), "rate <n>".split())
    (1.0, 0.0)
    """
    words = same = 0.0
    for ours, theirs in zip(template, line, strict=True):
        if ours == theirs:
            if not _MASK.fullmatch(theirs):
                words += 1
                same += 1
        else:
            if _KEPT.fullmatch(theirs) or _KEPT.fullmatch(ours):
                return 0.0
            words += 1
            same += 0.5 * (_key(ours) is not None and _key(ours) == _key(theirs))
    return same / words if words else 1.0


def _differ_at_first(template: Sequence[str], line: Sequence[str]) -> bool:
    rest = [
        (ours, theirs)
        for ours, theirs in zip(template[1:], line[1:], strict=True)
        if not (ours == theirs and _MASK.fullmatch(ours)) and ours != WILD
    ]
    same = sum(ours == theirs for ours, theirs in rest)
    return same == len(rest) >= SURE_WORDS and not _KEPT.fullmatch(template[0])


def _merged(ours: str, theirs: str) -> str:
    """The word for two places that differ. Of `key=value` the key stays."""
    if ours == theirs:
        return ours
    key = _key(ours)
    return f"{key}={WILD}" if key is not None and key == _key(theirs) else WILD


def _key(word: str) -> str | None:
    key, equals, _ = word.partition("=")
    return key if equals and key.isidentifier() else None
