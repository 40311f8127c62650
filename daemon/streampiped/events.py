"""The catalogue of log events: every name that can stand in a log, with its level and meaning.

Events are named `noun_verb` in the past tense. A test holds the catalogue to the code: whatever is emitted is listed,
whatever is listed is emitted. Fields that every event has: `ts` (seconds since the epoch, UTC), `level`, `event`,
`stage` (the process it is about), `pid` and, where one event led to others, `cause` (an id such as `c12`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Level: TypeAlias = Literal["debug", "info", "notice", "warning", "error", "critical"]

LEVELS: Final[tuple[Level, ...]] = ("debug", "info", "notice", "warning", "error", "critical")
"""Ascending; syslog priorities 7, 6, 5, 4, 3, 2."""


@dataclass(frozen=True, slots=True)
class EventSpec:
    """One entry of the catalogue. `text` is a str.format template over the fields, for people."""

    level: Level
    text: str


CATALOGUE: Final[Mapping[str, EventSpec]] = {
    # supervisor
    "pipeline_started": EventSpec(
        "info", "pipeline {pipeline} {version} started, {stages} stages, state in {state_dir}"
    ),
    "pipeline_ready": EventSpec("info", "every stage is ready, generation {generation}, after {seconds:.3f} s"),
    "pipeline_finished": EventSpec("info", "every source has ended and epoch {epoch} is committed"),
    "pipeline_stopped": EventSpec("info", "pipeline stopped"),
    "reload_requested": EventSpec("notice", "reload of {file} for {who}"),
    "reload_refused": EventSpec("error", "reload refused, nothing is changed: {reason}"),
    "reload_applied": EventSpec("notice", "{file} reloaded: {changes}"),
    "drain_started": EventSpec("info", "draining: {reason}"),
    "drain_timed_out": EventSpec(
        "warning", "drain not complete after {seconds:.1f} s; the next start repeats from epoch {epoch}"
    ),
    # processes
    "stage_loaded": EventSpec("debug", "loaded, pid {child}"),
    "stage_ready": EventSpec("debug", "ready for generation {generation}"),
    "stage_died": EventSpec("error", "died: {reason}"),
    "stage_raised": EventSpec("error", "raised in {phase}: {reason}"),
    "stage_failed": EventSpec("error", "reported a failure in {phase}: {reason}"),
    "stage_stalled": EventSpec("warning", "no progress for {seconds:.1f} s in {phase}, {condition}; its stack follows"),
    "stage_starved": EventSpec(
        "warning",
        "no progress for {seconds:.1f} s in {phase}, of which {own:.1f} s were its own; left alone, its stack follows",
    ),
    "stage_hung": EventSpec(
        "error", "no progress for {seconds:.1f} s in {phase}, {condition}; its stack follows, then it is killed"
    ),
    "stage_restart_scheduled": EventSpec("warning", "restart in {delay:.2f} s ({count} in the last {window:.0f} s)"),
    "health_changed": EventSpec("warning", "{health}: {reason}"),
    "health_restored": EventSpec("notice", "healthy again, was {before} for {seconds:.1f} s"),
    "stage_given_up": EventSpec("critical", "failed: {reason}"),
    "stage_output": EventSpec("info", "{line}"),
    "output_dropped": EventSpec("warning", "{count} lines of output dropped"),
    "launcher_started": EventSpec("debug", "fork server ready, pid {child}"),
    "launcher_died": EventSpec("warning", "fork server died: {reason}; stages go on, a new one comes"),
    "launcher_given_up": EventSpec(
        "critical", "the fork server dies at every start, nothing can run; see its output above"
    ),
    "command_failed": EventSpec("error", "{command} could not be performed: {reason}"),
    "orphan_ended": EventSpec("warning", "ended a process left behind: pid {child}"),
    # generations and epochs
    "generation_reset": EventSpec("warning", "generation {generation}: {reason}; restoring {origin}"),
    "generation_started": EventSpec("info", "generation {generation} runs from {origin}"),
    "first_batch_seen": EventSpec(
        "info", "first batch of generation {generation} at the last stage, {seconds:.3f} s after {since}"
    ),
    "epoch_committed": EventSpec("debug", "epoch {epoch} committed in {seconds:.3f} s"),
    "epoch_delayed": EventSpec(
        "warning", "epoch {epoch} took {seconds:.3f} s, {median:.3f} s are usual; most of it was {part}"
    ),
    "epochs_settled": EventSpec(
        "info", "epochs are as usual again; {count} more were slow, the slowest of them took {seconds:.3f} s"
    ),
    "stage_impaired": EventSpec("error", "cannot go on: {reason}; next attempt in {delay:.1f} s, nobody is restarted"),
    "links_failed": EventSpec(
        "error", "the links of generation {generation} cannot be made: {reason}; next attempt in {delay:.1f} s"
    ),
    "version_made": EventSpec("info", "version {epoch} ({reasons}): {champion} after {rows} rows"),
    "version_left_out": EventSpec("warning", "epoch {epoch} is no version, the disk refuses: {reason}"),
    "registry_damaged": EventSpec("warning", "{reason}"),
    "model_changed": EventSpec("notice", "{what}, from row {row} on"),
    "change_left": EventSpec("warning", "{what} is impossible by now: {reason}"),
    "member_full": EventSpec(
        "warning",
        "{member} has grown to its limit by row {row}: it answers on, and learns no more until begun anew",
    ),
    "record_left_out": EventSpec("error", "record {position} makes no frame and is left out: {reason}"),
    "records_quarantined": EventSpec("error", "{count} records put aside; streampipectl dlq list shows them"),
    "batch_not_tried": EventSpec(
        "error", "a sink without isolate() cannot be tried: the whole suspect batch of {count} records is put aside"
    ),
    "verdict_failed": EventSpec("error", "a verdict on records cannot be kept: {reason}; it is tried again"),
    "records_suspected": EventSpec("warning", "died of {records} again; its successor tries them in a fork first"),
    "epoch_aborted": EventSpec("warning", "epoch {epoch} aborted: {reason}"),
    "epoch_damaged": EventSpec("warning", "epoch {epoch} is damaged and put aside: {reason}"),
    "epoch_fell_back": EventSpec(
        "warning", "going on from epoch {epoch}, the newest that is whole; newer and damaged: {damaged}"
    ),
    # control
    "command_received": EventSpec("info", "{method} {params} by {who}"),
    "command_refused": EventSpec("warning", "{method} refused for {who}: {reason}"),
    "client_dropped": EventSpec("warning", "dropped a client: {reason}"),
    "request_failed": EventSpec("error", "{method} failed: {reason}"),
    # the log and the services' histories
    "log_file_failed": EventSpec("error", "cannot write {path}: {reason}; what is lost there is counted"),
    "log_lines_dropped": EventSpec("warning", "{count} log lines could not be written to {where}"),
    "log_follower_dropped": EventSpec("warning", "a follower of the log was dropped: {reason}"),
    "history_reset": EventSpec("warning", "{path} was unusable ({reason}), is kept as {kept}; a new one begins"),
    "history_failed": EventSpec("error", "cannot write {path}: {reason}; next attempt in {seconds:.0f} s"),
    "metrics_served": EventSpec("info", "metrics at http://{listen}/metrics"),
    "metrics_refused": EventSpec("error", "cannot listen at {listen}: {reason}; tried again"),
    "history_recovered": EventSpec("info", "{path} can be written again"),
    "journal_failed": EventSpec("error", "the journal cannot be followed: {reason}; next attempt in {seconds:.0f} s"),
    "journal_recovered": EventSpec("info", "the journal is followed again, from where it was left"),
    "journal_skipped": EventSpec(
        "warning", "the journal of {unit} was vacuumed beyond what was counted; going on with its oldest entry"
    ),
    # sources and sinks
    "records_rejected": EventSpec("warning", "{count} lines of {path} rejected, at row {row} and after: {reason}"),
    "keys_left_out": EventSpec(
        "warning", "{path} has keys from row {row} on that are no columns of the stream and are left out: {keys}"
    ),
    "target_missed": EventSpec(
        "warning",
        "no column {target} (target) in the stream; all of {mended} are mended, and labels among them are made up "
        "where they are missing",
    ),
    "source_rotated": EventSpec("info", "{path} was rotated; the next file begins with row {row}"),
    "source_truncated": EventSpec(
        "warning", "{path} was truncated after {offset} bytes were read; reading from its top"
    ),
    "files_not_merged": EventSpec("warning", "{path} keeps its small files: {reason}"),
    "sink_incomplete": EventSpec("warning", "{path} has nothing of epoch {epoch}, which is committed: {reason}"),
}


def level_of(event: str) -> Level:
    """The level of a catalogue event; a name that is not listed is a wrong program."""
    return CATALOGUE[event].level


def describe(event: str, fields: Mapping[str, object]) -> str:
    """The event for people. Fields that the template wants and that are missing show as `?`."""
    spec = CATALOGUE.get(event)
    if spec is None:
        return event
    try:
        return spec.text.format_map(fields)
    except (KeyError, ValueError, TypeError, OverflowError):  # a log's lines may say anything
        return f"{spec.text} {dict(fields)}"
