"""The queues of a plan over time, as an SVG that needs nothing to be looked at."""

from __future__ import annotations

from html import escape
from typing import Final

from deploy.plan.region import DAY_S, Outcome, Plan

_W: Final = 960
_H: Final = 420
_LEFT: Final = 88
_RIGHT: Final = 24
_TOP: Final = 64
_BOTTOM: Final = 56
_INK: Final = "#1f2933"
_SOFT: Final = "#52606d"
_GRID: Final = "#e4e7eb"
_ALL: Final = "#2563a8"
_WORST: Final = "#b4540a"
_OUTAGE: Final = "#f3e3d3"
_BUDGET: Final = "#b42318"


def svg(plan: Plan, outcome: Outcome, capacity: float) -> str:
    """`capacity`: events that fit into one edge's budget."""
    worst = max((w for _, _, w in outcome.curve), default=0.0)
    top = _nice(max(worst * 1.15, 1.0))
    parts = [*_frame(plan, top), _shade(plan, outcome)]
    parts.append(_line([(t, w) for t, _, w in outcome.curve], plan, top, _WORST))
    mean = [(t, total / plan.edges) for t, total, _ in outcome.curve]
    parts.append(_line(mean, plan, top, _ALL))
    if capacity <= top:
        y = _y(capacity, top)
        parts.append(f'<line x1="{_LEFT}" x2="{_W - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_BUDGET}" stroke-dasharray="6 4"/>')
        parts.append(_text(_W - _RIGHT, y - 6, "budget of an edge's disk", "end", _BUDGET))
    parts += _legend(plan)
    inner = "\n".join(p for p in parts if p)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_W} {_H}" font-family="system-ui, sans-serif" font-size="13" role="img">'
        f'\n<rect width="{_W}" height="{_H}" fill="#fff"/>\n{inner}\n</svg>\n'
    )


def _x(t: float, plan: Plan) -> float:
    return _LEFT + (_W - _LEFT - _RIGHT) * t / (plan.days * DAY_S)


def _y(value: float, top: float) -> float:
    return _H - _BOTTOM - (_H - _TOP - _BOTTOM) * value / top


def _text(x: float, y: float, words: str, anchor: str = "start", ink: str = _SOFT) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{ink}">{escape(words)}</text>'


def _frame(plan: Plan, top: float) -> list[str]:
    out = []
    for i in range(5):
        value = top * i / 4
        y = _y(value, top)
        out.append(f'<line x1="{_LEFT}" x2="{_W - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_GRID}"/>')
        out.append(_text(_LEFT - 10, y + 4, f"{value:,.0f}", "end"))
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 1_000) if plan.days / s <= 12)
    for day in range(0, int(plan.days) + 1, step):
        out.append(_text(_x(day * DAY_S, plan), _H - _BOTTOM + 20, str(day), "middle"))
    out.append(_text(_W - _RIGHT, _H - 12, "day", "end"))
    return out


def _shade(plan: Plan, outcome: Outcome) -> str:
    if plan.outage_s <= 0:
        return ""
    a, b = _x(plan.outage_from_s, plan), _x(min(outcome.outage_end_s, plan.days * DAY_S), plan)
    shade = f'<rect x="{a:.1f}" y="{_TOP}" width="{max(b - a, 1):.1f}" height="{_H - _TOP - _BOTTOM}" fill="{_OUTAGE}"/>'
    return shade + _text((a + b) / 2, _TOP + 16, "no link", "middle")


def _line(points: list[tuple[float, float]], plan: Plan, top: float, ink: str) -> str:
    path = " ".join(f"{_x(t, plan):.1f},{_y(v, top):.1f}" for t, v in points)
    return f'<polyline points="{path}" fill="none" stroke="{ink}" stroke-width="2" stroke-linejoin="round"/>'


def _legend(plan: Plan) -> list[str]:
    title = _text(_LEFT, 24, f"Events that wait at an edge: {plan.edges} edges, {plan.days:g} days", "start", _INK)
    return [
        title.replace("<text", '<text font-size="16" font-weight="600"'),
        f'<rect x="{_LEFT}" y="36" width="14" height="4" fill="{_WORST}"/>' + _text(_LEFT + 20, 44, "the largest queue"),
        f'<rect x="{_LEFT + 170}" y="36" width="14" height="4" fill="{_ALL}"/>' + _text(_LEFT + 190, 44, "the mean of all edges"),
    ]


def _nice(value: float) -> float:
    """The next round number above."""
    power = 1.0
    while power * 10 <= value:
        power *= 10
    return next(m * power for m in (1, 2, 4, 6, 8, 10) if m * power >= value)
