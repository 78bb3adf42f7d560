"""The rates of a bench as an SVG: a group of bars for each transport, the agent's first."""

from __future__ import annotations

from html import escape

from .contest import AGENT
from .report import Findings

_WIDTH, _BAR, _GAP, _LEFT, _TOP = 860, 16, 26, 250, 54
_OURS, _OTHER = "#1a7f37", "#8c959f"


def svg(findings: Findings) -> str:
    """The picture, MB/s of whole runs (larger is better), with the spread from the slowest to the fastest run."""
    shapes, at, scale = [], _TOP, (_WIDTH - _LEFT - 90) / max(_rates(findings).values(), default=1.0)
    for transport in dict.fromkeys(transport for transport, _ in findings.single):
        shapes.append(_text(10, at + 12, transport, "bold"))
        for who in [one for seen, one in findings.single if seen == transport]:
            shapes += _bar(findings, transport, who, at, scale)
            at += _BAR + 4
        at += _GAP
    title = f"{findings.target}: MB/s of whole runs, archives of {findings.size >> 20} MiB"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{at}" font-family="sans-serif">'
    white = f'<rect width="{_WIDTH}" height="{at}" fill="white"/>'
    return "\n".join([head, white, _text(10, 26, title, "bold", 15), *shapes, "</svg>", ""])


def _rates(findings: Findings) -> dict[tuple[str, str], float]:
    """The rate of everybody's fastest run."""
    return {
        key: findings.size / 1e6 / min(sample.cost.seconds for sample in samples)
        for key, samples in findings.single.items()
    }


def _bar(findings: Findings, transport: str, who: str, at: int, scale: float) -> list[str]:
    times = [sample.cost.seconds for sample in findings.single[transport, who]]
    rate = findings.size / 1e6 / findings.seconds(transport, who)
    low, high = (_LEFT + findings.size / 1e6 / seconds * scale for seconds in (max(times), min(times)))
    middle = at + _BAR // 2
    colour = _OURS if who.startswith(AGENT) else _OTHER
    return [
        f'<rect x="{_LEFT}" y="{at}" width="{rate * scale:.1f}" height="{_BAR}" fill="{colour}"/>',
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" stroke="black"/>',
        _text(_LEFT - 6, at + 12, who, anchor="end"),
        _text(int(max(high, _LEFT + rate * scale)) + 6, at + 12, f"{rate:.0f}"),
    ]


def _text(x: int, y: int, text: str, weight: str = "normal", size: int = 12, anchor: str = "start") -> str:
    style = f'font-size="{size}" font-weight="{weight}" text-anchor="{anchor}"'
    return f'<text x="{x}" y="{y}" {style}>{escape(text)}</text>'
