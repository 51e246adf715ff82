"""Samples as Prometheus reads them: the text format, of hubs and projectors alike. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import groupby

from hub.facade import Metric


def metrics_text(samples: Iterable[Metric]) -> str:
    """The samples, with HELP and TYPE once per family."""
    lines = []
    for name, family in groupby(samples, key=lambda sample: sample.name):
        first, *more = family
        lines += [f"# HELP {name} {_escaped(first.help)}", f"# TYPE {name} {first.type}"]
        lines += [f"{name}{sample.suffix}{_labels(sample.labels)} {_number(sample.value)}" for sample in (first, *more)]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{name}="{_escaped(str(value), quote=True)}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""


def _escaped(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if float(value).is_integer() else repr(float(value))
