"""The control tool's drawings: units, widths, reasons, and text of strangers."""

from __future__ import annotations

import re

import pytest

from streampipectl import probes, render, render_letters
from streampipectl.render_model import model_text
from support.control_backend import checkpoint, process, status_of

NAMES = ("generator", "normalizer", "consumer", "trainer", "evaluator", "log_extractor", "service_monitor")
WHOLE = status_of(*(process(name) for name in NAMES))


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "-"), (0, "0"), (7, "7"), (7.25, "7.2"), (999, "999"), (1000, "1.0k"), (48_230, "48k"),
     (999_600, "1.0M"), (3_400_000, "3.4M"), (12_000_000_000, "12G"), (0.0, "0")],
)  # fmt: skip
def test_count(number: float | None, text: str) -> None:
    """A count takes at most five characters and is rounded, not cut."""
    assert render.count(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "-"), (0, "0B"), (512, "512B"), (1 << 20, "1.0M"), (125 << 20, "125M")],
)
def test_size(number: int | None, text: str) -> None:
    """Bytes are shown in binary units."""
    assert render.size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "0ms"), (0.00025, "250us"), (0.012, "12ms"), (0.0999, "0.1s"), (4.21, "4.2s"), (42.4, "42s"),
     (59.7, "1m00s"), (187, "3m07s"), (7500, "2h05m"), (3 * 86400 + 4 * 3600, "3d04h")],
)  # fmt: skip
def test_duration(seconds: float | None, text: str) -> None:
    """A duration has its two largest units."""
    assert render.duration(seconds) == text


def test_transcript() -> None:
    """A whole status reads like this on a wide terminal."""
    trouble = process(
        "trainer", state="backoff", pid=None, restarts=3, last_reason="killed by SIGSEGV", next_attempt_s=0.4,
        records_per_s=None, lag_s=None, cpu_percent=None, rss_bytes=None, uss_bytes=None,
    )  # fmt: skip
    status = status_of(process("generator"), trouble, state="resetting", reason="trainer died")
    assert render.status_text(status).split("\n") == [
        "friedman: resetting, up 4m12s, epoch 231 (0.4s ago), generation 2, trainer died",
        "1.2M records, 48k/s, lag 12ms, 3 restarts, CPU 163 %, RSS 512M",
        "MSE 3.05, R2 0.877 over 1.2M rows",
        "",
        "NAME       STATE    SINCE   PID  RST    IN   OUT  REC/S   LAG  CPU   RSS  USS",
        "generator  ready    4m12s  4242    0  1.2M  1.2M    48k  12ms  63%  120M  40M",
        "trainer    backoff  4m12s     -    3  1.2M  1.2M      -     -    -     -    -",
        "",
        "trainer: killed by SIGSEGV; next attempt in 0.4s",
    ]


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_width(width: int) -> None:
    """No line is wider than the terminal, and name, state and rate are always there."""
    lines = render.status_text(WHOLE, width).split("\n")
    assert max(map(len, lines)) <= width
    (header,) = (line for line in lines if line.startswith("NAME"))
    assert {"NAME", "STATE", "PID", "RST", "REC/S"} <= set(header.split())


def test_eighty_columns_show_the_flow() -> None:
    """At 80 columns records in and out, lag, CPU and RSS have their place."""
    header = next(line for line in render.status_text(WHOLE, 80).split("\n") if line.startswith("NAME"))
    assert {"IN", "OUT", "LAG", "CPU", "RSS"} <= set(header.split())


LONG = ("a_normalizer_of_the_pumps_left", "a_normalizer_of_the_pumps_right", "trainer_of_what_all_pumps_need__")


@pytest.mark.parametrize("width", [None, 60, 80])
def test_long_names_leave_room(width: int | None) -> None:
    """Names of 30 characters and more take no other column's place: they lose their middle, each differently, and no
    line is cut."""
    text = render.status_text(status_of(*(process(name) for name in LONG)), width)
    lines = text.split("\n")
    assert max(map(len, lines)) <= (width or 80)
    at = next(number for number, line in enumerate(lines) if line.startswith("NAME"))
    wanted = {"REC/S", "RST", "PID"} | ({"IN", "OUT", "LAG", "CPU", "RSS"} if width != 60 else set())
    assert wanted <= set(lines[at].split())
    shown = [line.split()[0] for line in lines[at + 1 : at + 4]]
    assert len(set(shown)) == 3
    for name, found in zip(LONG, shown, strict=True):
        first, last = found.split("…")
        assert name.startswith(first)
        assert name.endswith(last)
    assert "48k" in lines[at + 1]


def test_a_state_has_its_colour_beside_a_long_name() -> None:
    """Colours follow what stands in the table."""
    text = render.status_text(status_of(process(LONG[0], state="failed", last_reason="died")), 80, colour=True)
    assert "\x1b[31mfailed\x1b[0m" in text
    assert f"{LONG[0]}: given up" in text


def test_into_a_pipe_all_is_there_in_eighty_columns() -> None:
    """Without a terminal no column is left out and no line is cut; with long names and a long story every line has 80
    columns at most, and put together again they say the same."""
    reason = "killed by SIGKILL while it was asleep in a system call and nobody knows for how long that would have been"
    names = (*NAMES[:-2], "log_extractor", "service_monitor")
    figures = {"records_in": 123_456_789, "records_out": 123_456_789, "pid": 4_194_303, "cpu_percent": 163.0}
    found = [process(name, **figures, last_reason=reason, restarts=12, state="resetting") for name in names]
    status = status_of(*found, state="resetting", reason="trainer died", pipeline="a pipeline with a rather long name")
    status |= {
        "health": "failed",
        "health_reason": f"trainer: {reason}",
        "held": ["2026-11-before-the-change", "b" * 40],
    }
    lines = render.status_text(status).split("\n")
    assert max(map(len, lines)) <= 80, max(lines, key=len)
    (header,) = (line for line in lines if line.startswith("NAME"))
    assert header.split() == [column.title for column in render.COLUMNS]
    flowing = " ".join(" ".join(lines).split())
    assert flowing.count(reason) == len(names) + 1
    assert "generation 2, trainer died" in flowing
    assert f"held: 2026-11-before-the-change {'b' * 40}" in flowing


@pytest.mark.parametrize("width", [None, 40, 80, 120])
def test_health_is_never_cut(width: int | None) -> None:
    """A reason goes on below itself: no line is wider than the terminal, or 80 columns of a pipe, and every word of it
    is there; colours change no text."""
    reason = "no progress for 13.0 s in phase waiting, with input unread, stopped by a signal (SIGSTOP or SIGTSTP)"
    stages = [{"name": name, "health": "healthy", "since": 100.0, "reason": None} for name in NAMES]
    stages[3] |= {"health": "stalled", "reason": reason}
    answer = {"pipeline": "friedman", "now": 121.0, "live": True, "ready": False, "health": "stalled"}
    answer |= {"reason": f"trainer: {reason}", "stages": stages}
    text = probes.health_text(answer, width)
    lines = text.split("\n")
    assert max(map(len, lines)) <= (width or 80)
    flowing = " ".join(text.split())
    assert flowing.count(reason) == 2
    rows = lines[lines.index("") + 2 :]
    assert [line.split()[0] for line in rows if not line.startswith(" ")] == list(NAMES)
    painted = probes.health_text(answer, width, colours=True)
    assert "\x1b[31mstalled\x1b[0m" in painted
    assert re.sub(r"\x1b\[\d*m", "", painted) == text


def test_colour_changes_no_text() -> None:
    """Without its colours the coloured drawing is the plain one."""
    status = status_of(process("generator"), process("trainer", state="failed"), state="failed")
    coloured = render.status_text(status, 80, colour=True)
    assert "\x1b[31mfailed\x1b[0m" in coloured
    plain = coloured
    for code in ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"):
        plain = plain.replace(code, "")
    assert plain == render.status_text(status, 80)


def test_strangers_cannot_speak_to_the_terminal() -> None:
    """Escape sequences and newlines in reasons and names do not reach the terminal."""
    evil = "\x1b]0;owned\x07\nfake: line"
    text = render.status_text(status_of(process("x" + evil, last_reason=evil), reason=evil))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert not any(line.startswith("fake") for line in text.split("\n"))


def test_progress_of_a_bounded_stream() -> None:
    """With a known total the share that is done is shown."""
    status = status_of(process("generator"))
    status["totals"]["total"] = 2_400_000
    assert "1.2M of 2.4M records (50 %)" in render.status_text(status)


@pytest.mark.parametrize(
    ("processes", "expected"),
    [
        ([process("a"), process("b", state="running")], True),
        ([process("a"), process("b", state="stopped", wanted=False)], True),
        ([process("a"), process("b", state="finished")], True),
        ([process("a"), process("b", state="stopped")], False),
        ([process("a"), process("b", state="backoff")], False),
        ([process("a", state="loading")], False),
    ],
)
def test_healthy(processes: list[dict[str, object]], expected: bool) -> None:
    """Healthy means every wanted process is ready; what was stopped on purpose does not count."""
    assert render.healthy(status_of(*processes)) is expected


def test_failed_pipeline_is_not_healthy() -> None:
    """A pipeline that gave up is not healthy, whatever its processes say."""
    assert not render.healthy(status_of(process("a"), state="failed"))


def test_unknown_is_a_dash() -> None:
    """Every figure may be null."""
    row = dict.fromkeys(process("a")) | {"name": "a", "state": "stopped"}
    totals = dict.fromkeys(status_of()["totals"])
    status = status_of(row, totals=totals, report=None, epoch=None, epoch_age=None, uptime=None, now=None)
    assert "a     stopped      -" in render.status_text(status)


def test_change_lines() -> None:
    """A change says what was changed and how long it took, or that it goes on."""
    done = {"verb": "restart", "changed": ["trainer"], "seconds": 0.114, "done": True}
    assert render.change_text(done, ("trainer",)) == "restart trainer: trainer, 0.11 s"
    assert render.change_text(done | {"changed": []}, ()) == "restart of the pipeline: nothing to do, 0.11 s"
    assert render.change_text(done | {"done": False}, ("trainer",)) == "restart trainer: accepted, going on"


def test_report() -> None:
    """The evaluator's own text is taken; without one the figures are listed."""
    assert render.report_text({"text": "MSE 3\n\x1b[2JR2 1"}) == "MSE 3\n?[2JR2 1"
    assert render.report_text({"results": {"mse": 3.0512345678, "rows": 5}}) == "results:\n  mse: 3.05123\n  rows: 5"


# epochs, reasons, dead letters

PARTS = {"align": 0.012, "snapshot": 0.003, "fsync": 0.02, "manifest": 0.005, "sink_commit": 0.0024, "total": 0.042}


def test_recovery_lines() -> None:
    """What the last epoch took, what is on the disk and what waits for the operator are two lines of 80 columns."""
    status = status_of(
        process("a"), epoch_parts=PARTS, state_bytes=120 << 20, dead_letters=3, recovery_s=0.062, held=["a", "b"]
    )
    lines = render.status_text(status).split("\n")
    assert lines[3:6] == [
        "last epoch 42ms: align 12ms, snapshot 3ms, fsync 20ms, manifest 5ms, sink 2ms",
        "state 120M, last recovery 62ms, 3 dead letters, held: a b",
        "",
    ]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"state_bytes": 0}, "state 0B"),
        ({"dead_letters": 1}, "1 dead letter"),
        ({"recovery_s": 0.25}, "last recovery 0.2s"),
        ({"held": ["trainer"]}, "held: trainer"),
        ({"log_drops": {"journal_dropped": 2, "file_dropped": 1}}, "3 log lines lost"),
        ({"epoch_parts": {"total": 0.5, "align": None}}, "last epoch 0.5s"),
        ({"epoch_parts": {"align": 0.5}}, "last epoch -: align 0.5s"),
    ],
)
def test_each_part_alone(changes: dict[str, object], line: str) -> None:
    """Each of these fields may be the only one that is known."""
    assert render.status_text(status_of(process("a"), **changes)).split("\n")[3] == line


@pytest.mark.parametrize(
    "changes", [{}, {"epoch_parts": None, "state_bytes": None, "dead_letters": None, "recovery_s": None, "held": None},
                {"epoch_parts": {}, "dead_letters": 0, "held": [], "log_drops": {"journal_dropped": 0}}],
)  # fmt: skip
def test_nothing_to_say_about_recovery(changes: dict[str, object]) -> None:
    """Of an older daemon's status, or where nothing is known, no line is drawn."""
    plain = render.status_text(status_of(process("a")))
    assert render.status_text(status_of(process("a"), **changes)) == plain
    assert len(plain.split("\n")) == 3 + 1 + 2


def test_an_ill_pipeline_says_so() -> None:
    """Health is a line of its own when it is bad, with the reason, and none when it is good or not known."""
    ill = status_of(process("a"), health="lagging", health_reason="a: its records are 7.0 s old")
    assert "\nlagging: a: its records are 7.0 s old\n" in render.status_text(ill)
    assert "healthy" not in render.status_text(status_of(process("a"), health="healthy", health_reason=None))


def test_checkpoints() -> None:
    """A line per epoch, the live one with a star, names at the end; what is not known is a dash."""
    rows = [checkpoint(9, names=["before-upgrade"]), checkpoint(231, live=True, position=None, seconds=None)]
    assert render.checkpoints_text({"checkpoints": rows, "now": 1_252.0}).split("\n") == [
        "EPOCH    AGE  SIZE  RECORDS  TOOK  NAMES",
        "    9  4m03s  9.0M      45k  42ms  before-upgrade",
        " 231*    21s  9.0M        -     -  -",
    ]
    assert render.checkpoints_text({"checkpoints": [], "now": 1.0}) == "no epoch has been committed yet"


def test_checkpoint_line() -> None:
    """What was committed, how far it reaches, how long it took, and under which name it stays."""
    done = {"verb": "checkpoint", "epoch": 232, "position": 1_160_000, "seconds": 0.041, "keep": None, "done": True}
    assert render.checkpoint_text(done) == "checkpoint: epoch 232, 1.2M records, 0.04 s"
    kept = done | {"keep": "nightly", "position": None}
    assert render.checkpoint_text(kept) == "checkpoint: epoch 232, 0.04 s, kept as nightly"
    assert render.checkpoint_text(done | {"done": False, "epoch": None}) == "checkpoint: accepted, going on"


def test_why() -> None:
    """State, reason, what is waited for, the next attempt, and the story in the order in which it happened."""
    answer = {
        "stage": "trainer", "state": "backoff", "since": 1_240.0, "now": 1_252.0, "reason": "killed by SIGSEGV",
        "waits_for": "its back-off", "next_attempt_s": 0.4,
        "story": [{"ts": 0.5, "what": "died: killed\x1b by SIGSEGV", "cause": "c12"}, {"ts": 1.0, "what": "waits"}],
    }  # fmt: skip
    lines = render.why_text(answer).split("\n")
    assert lines[:4] == [
        "trainer: backoff for 12s", "reason: killed by SIGSEGV", "waits for: its back-off", "next attempt: in 0.4s",
    ]  # fmt: skip
    assert [line.split(maxsplit=1)[1] for line in lines[4:]] == ["died: killed? by SIGSEGV (c12)", "waits"]
    assert lines[4].split()[0].endswith(":00.500")
    bare = dict.fromkeys(answer) | {"stage": "trainer", "state": "ready"}
    assert render.why_text(bare) == "trainer: ready"
    assert max(map(len, render.why_text(answer, 20).split("\n"))) == 20


LETTER = {
    "id": 7, "stage": "consumer", "source": "generator", "position": 90210, "attempt": 0, "status": "dead",
    "manner": "raised", "reason": "ValueError: x is\nnot finite", "first_at": 0.0, "last_at": 0.0, "generation": 3,
    "replay_epoch": None,
}  # fmt: skip


def test_list_of_letters() -> None:
    """A line per letter with its reason on one line, and how many there are beyond."""
    lines = render_letters.list_text([LETTER, LETTER | {"id": 8, "attempt": 2, "status": "dropped"}], 12).split("\n")
    assert lines[0].split() == ["ID", "STATUS", "STAGE", "SOURCE", "POSITION", "TRY", "LAST", "REASON"]
    assert lines[1].startswith(" 7  dead     consumer  generator     90210    0  ")
    assert lines[1].endswith("  ValueError: x is not finite")
    assert lines[3] == "2 of 12; --limit shows more"
    assert max(map(len, render_letters.list_text([LETTER], 1, 40).split("\n"))) == 40
    assert render_letters.list_text([], 0) == "no dead letters"


def test_way_of_a_letter() -> None:
    """The list has it as soon as one letter's row has come by one of several ways, and in 80 columns still the reason;
    one letter alone tells it likewise."""
    letters = [LETTER | {"via": "left"}, LETTER | {"id": 8, "via": ""}]
    assert "VIA" not in render_letters.list_text([LETTER, letters[1]], 2)
    lines = render_letters.list_text(letters, 2).split("\n")
    assert lines[0].split()[3:7] == ["SOURCE", "POSITION", "VIA", "TRY"]
    assert [line.split()[5] for line in lines[1:]] == ["left", "-"]
    assert "LAST" in lines[0]
    assert "  ValueError: x is not" in render_letters.list_text(letters, 2, 80)
    shown = [render_letters.letter_text(letter).split("\n")[2] for letter in (*letters, LETTER)]
    assert shown == ["record: generator 90210 via left", *["record: generator 90210"] * 2]


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({}, "letter 7: dead, in the stream"),
        ({"attempt": 2}, "letter 7: dead, in replay 2"),
        ({"attempt": 1, "status": "replayed", "replay_epoch": 40}, "letter 7: replayed in epoch 40, attempt 1"),
        ({"status": "dropped"}, "letter 7: dropped, in the stream"),
    ],
)
def test_state_of_a_letter(changes: dict[str, object], first: str) -> None:
    """What became of a letter is its first line."""
    assert render_letters.letter_text(LETTER | changes).split("\n")[0] == first


def test_whole_letter() -> None:
    """A record shows text as text and no number as null; a traceback keeps its shape; neither moves the cursor."""
    record = {"x": None, "y": "Infinity", "who\x1b[2J": "a\u202eb", "n": 1}
    letter = LETTER | {"record": record, "traceback": 'Traceback:\n  File "x.py"\n    \x1b[2Jboom\n'}
    lines = render_letters.letter_text(letter).split("\n")
    assert lines[4] == "reason: raised: ValueError: x is not finite"
    assert lines[6:10] == ["  x: null", '  y: "Infinity"', '  who?[2J: "a?b"', "  n: 1"]
    assert lines[11:] == ["  Traceback:", '    File "x.py"', "      ?[2Jboom"]
    assert "the record cannot be read" in render_letters.letter_text(LETTER | {"record": None})


def test_decided() -> None:
    """What was replayed or dropped is one line, with what is left."""
    answer = {"verb": "replay", "letters": 1, "epoch": 240, "seconds": 0.214, "dead": 0, "done": True}
    assert render_letters.decided_text(answer) == "replay: 1 letter, epoch 240, 0.21 s"
    assert render_letters.decided_text({"verb": "drop", "letters": 3, "dead": 20}) == "drop: 3 letters, 20 still dead"
    assert render_letters.decided_text(answer | {"done": False}) == "replay: accepted, going on"


def test_a_member_that_learns_no_more_is_named() -> None:
    """`model show` has a line below the table for each member that has grown to its limit, and for no other; an older
    daemon does not say."""
    member = {"kind": "estimator", "loss": 1.0, "rows": 9, "rollbacks": 0, "resets": 0}
    members = [member | {"name": "river", "full": True}, member | {"name": "sgd", "full": False}]
    answer = {"stage": "trainer", "champion": "river", "entry": None, "rows": 9, "rows_learned": 9, "target": "y"}
    text = model_text({**answer, "features": ["x"], "members": [*members, member | {"name": "old"}]})
    assert [line for line in text.splitlines() if "limit" in line] == [
        "river has grown to its limit: it learns no more"
    ]
