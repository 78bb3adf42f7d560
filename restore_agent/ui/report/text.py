"""Report as text for a terminal or a mail."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..wording import size_text, time_text
from .rows import MARKS, PROOF, facts, heading, host_cells, standing_text, why
from .timeline import PHASES, Lane, Timeline, timeline
from .values import BatchReport, Problem, Row
from .wording import UNKNOWN, cut, moment, visible, width_of

_NARROWEST = 40

_SIGNS = dict(zip(PHASES, ".#~=", strict=True))


def as_text(report: BatchReport, width: int = 80) -> str:
    """Return the report in lines of at most `width` columns (40 or more); one longer word, such as a path, is split."""
    width = max(width, _NARROWEST)
    parts = [_top(report, width), _rows(report, width), _timeline(report, width), _proof(width), _hosts(report, width)]
    return "\n\n".join("\n".join(line.rstrip() for line in part) for part in parts if part) + "\n"


def _wrapped(text: str, width: int, first: str = "", later: str | None = None) -> list[str]:
    """Return `text`, made visible, in lines of `width` columns; wide characters count twice."""
    indent = first if later is None else later
    lines, line = [], first
    for word in visible(text, 2000).split(" "):
        for piece in _pieces(word, width - len(indent)):
            bare = line in (first, indent)
            if not bare and width_of(line) + 1 + width_of(piece) > width:
                lines.append(line)
                line, bare = indent, True
            line += piece if bare else f" {piece}"
    return [*lines, line]


def _pieces(word: str, width: int) -> Iterator[str]:
    while width_of(word) > width:
        end = len(word)
        while width_of(word[:end]) > width:
            end = min(end - 1, end * width // width_of(word[:end]) + 1)
        yield word[:end]
        word = word[end:]
    yield word


def _pair(name: str, value: str, width: int, indent: int) -> list[str]:
    first = f"{' ' * indent}{name:<14}"
    longest = max(map(width_of, visible(value).split(" ")))
    if longest > width - len(first):  # a path stays in one piece where a line of its own can hold it
        return [first, *_wrapped(value, width, " " * (indent + 2))]
    return _wrapped(value, width, first, " " * len(first))


def _top(report: BatchReport, width: int) -> list[str]:
    lines = _wrapped(report.sentence, width)
    lines += [line for problem in report.problems for line in _problem(problem, width)]
    lines += [line for note in report.notes for line in ["", *_wrapped(f"Note: {note}", width, "", "  ")]]
    return [*lines, "", *(line for name, value in heading(report) for line in _pair(name, value, width, 0))]


def _problem(problem: Problem, width: int) -> Iterator[str]:
    yield ""
    yield from _wrapped(f"{problem.title} (exit code {problem.code})", width, "✗ ", "  ")
    for name, where in problem.archives:
        yield from _wrapped(f"{name}  {where}", width, "    ", "      ")
    yield from _wrapped(f"Next: {problem.step}", width, "  ", "  ")


def _rows(report: BatchReport, width: int) -> list[str]:
    lines = ["ARCHIVES"]
    for row in report.rows:
        lines += ["", *_row(row, width)]
    return lines if report.rows else []


def _row(row: Row, width: int) -> Iterator[str]:
    archive = row.archive
    yield from _wrapped(f"{standing_text(row):<12} {archive.name}", width, f"{MARKS[row.standing]} ", " " * 15)
    if reason := why(row):
        yield from _wrapped(reason, width, "  ", "  ")
    yield from _pair("host", archive.host.label, width, 2)
    exact = "" if archive.size is None else f" ({archive.size} bytes)"
    yield from _pair("size", size_text(archive.size) + exact if archive.size is not None else UNKNOWN, width, 2)
    for name, value in facts(row):
        yield from _pair(name, value, width, 2)


def _timeline(report: BatchReport, width: int) -> list[str]:
    picture = timeline(report.rows)
    if not picture.lanes:
        return []
    if not picture.known:
        return ["TIMELINE", "", *_wrapped("Unknown: the receipts are of a restore-agent that did not write it.", width)]
    ended = picture.start + picture.seconds
    span = f"{moment(picture.start)} to {moment(ended)} UTC, {time_text(picture.seconds)}"
    legend = "   ".join(f"{sign} {phase}" for phase, sign in _SIGNS.items())
    names = max(width // 3, 14)
    lines = ["TIMELINE", "", *_wrapped(span, width), *_wrapped(legend, width), ""]
    return lines + [_lane(lane, picture, names, width - names - 13) for lane in picture.lanes]


def _lane(lane: Lane, picture: Timeline, names: int, cells: int) -> str:
    name = cut(lane.label, names - 1)
    bar = [" "] * cells
    for segment in lane.segments:
        start = min(int(segment.start * cells), cells - 1)
        for place in range(start, min(max(start + 1, round((segment.start + segment.width) * cells)), cells)):
            bar[place] = _SIGNS[segment.phase]
    return f"{name}{' ' * (names - width_of(name))}{''.join(bar)} {lane.length:>12}"


def _proof(width: int) -> list[str]:
    return ["HOW THE PROOF WORKS", "", *_wrapped(" ".join(PROOF), width)]


def _hosts(report: BatchReport, width: int) -> list[str]:
    return ["HOSTS AND VERSIONS", *(line for host in report.hosts for line in ["", *_host(host_cells(host), width)])]


def _host(cells: Iterable[str], width: int) -> Iterator[str]:
    label, version, archives, ended, times, source = cells
    yield from _wrapped(label, width)
    pairs = (
        ("restore-agent", version),
        ("archives", archives),
        ("outcome", ended),
        ("run", times),
        ("receipt", source),
    )
    for name, value in pairs:
        yield from _pair(name, value, width, 2)
