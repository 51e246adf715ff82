"""Figures by site for Prometheus: what is not here yet, how old the oldest of it is, who is away. At most SITES of them, worst first; the
rest are summed up, so that a region of thousands of vans does not become thousands of series."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from hub.facade import Metric
from hub.views import FleetRow

SITES: Final = 200
OTHERS: Final = ("(others)", "(others)", "(others)")

Place = tuple[str, str, str]
"""(org, region, site)"""


@dataclass(slots=True)
class _Site:
    nodes: list[FleetRow] = field(default_factory=list)

    @property
    def missing(self) -> int:
        return sum(row.missing or 0 for row in self.nodes)

    @property
    def oldest_ms(self) -> int:
        return max((row.oldest_age_ms or 0 for row in self.nodes), default=0)

    @property
    def away(self) -> int:
        return sum(not row.online for row in self.nodes)


class SiteFamily(NamedTuple):
    """A metric family with a sample per site."""

    name: str
    help: str


FAMILIES: Final = (
    SiteFamily("longshore_site_nodes", "Admitted nodes of a site."),
    SiteFamily("longshore_site_nodes_away", "Those of them that are not connected."),
    SiteFamily("longshore_site_missing_events", "Facts that a site's nodes have and this hub has not."),
    SiteFamily("longshore_site_missing_bytes", "Estimated bytes of them."),
    SiteFamily("longshore_site_oldest_seconds", "Age of the oldest fact of a site's nodes that is not settled."),
    SiteFamily("longshore_site_silence_seconds", "Since any node of a site was last heard; NaN where none was since the hub was made."),
    SiteFamily("longshore_site_holes", "Holes in the streams of a site's nodes."),
)


def samples(fleet: Iterable[FleetRow], now_ms: int) -> Iterator[Metric]:
    """A sample per family and site."""
    sites = _bounded(fleet)
    for n, family in enumerate(FAMILIES):
        for (org, region, site), rows in sites.items():
            labels = {"org": org, "region": region, "site": site}
            yield Metric(family.name, family.help, "gauge", labels, _figures(rows, now_ms)[n])


def _figures(site: _Site, now_ms: int) -> tuple[float, ...]:
    heard = [row.last_seen_ms for row in site.nodes if row.last_seen_ms is not None]
    return (
        len(site.nodes),
        site.away,
        site.missing,
        sum(row.missing_bytes or 0 for row in site.nodes),
        site.oldest_ms / 1_000,
        max(now_ms - max(heard), 0) / 1_000 if heard else float("nan"),
        sum(row.holes for row in site.nodes),
    )


def _bounded(fleet: Iterable[FleetRow]) -> dict[Place, _Site]:
    """By site, in the order of their names; where there are too many, the worst by themselves and the others together."""
    sites: dict[Place, _Site] = {}
    for row in fleet:
        if row.admitted:
            sites.setdefault((row.org, row.region, row.site), _Site()).nodes.append(row)
    if len(sites) <= SITES:
        return dict(sorted(sites.items()))
    ranked = sorted(sites.items(), key=lambda item: (-item[1].oldest_ms, -item[1].missing, -item[1].away, item[0]))
    others = _Site([row for _, site in ranked[SITES - 1 :] for row in site.nodes])
    return dict(sorted(ranked[: SITES - 1])) | {OTHERS: others}
