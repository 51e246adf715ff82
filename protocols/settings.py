"""Settings as a table: from its rows come the commented file, the parsing, the checks and the documents, so that they cannot drift.

A file is TOML with one level of sections. What is said later wins: defaults, the file, drop-in files in the order of their names, then
environment variables `LONGSHORE_SECTION__KEY`. Unknown sections and keys are errors, with the name that was probably meant. Secrets are
never settings: a setting names the file that holds one. Pure: texts and the environment are arguments, paths are joined, never opened.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final, NamedTuple

from protocols.errors import ConfigError

Value = bool | int | str
ENV_PREFIX: Final = "LONGSHORE_"
_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off")
_WIDTH: Final = 110


@dataclass(frozen=True, slots=True)
class Setting:
    """One row. The type is that of `default`. `unit` is for people; the key carries it too where it is one (`_ms`, `_bytes`).

    `least`, `most`: bounds of a number. `allowed`: the only texts taken. `path`: a file or folder, relative to the file's own folder.
    `required`: the empty default cannot stand.
    """

    section: str
    key: str
    default: Value
    doc: str
    unit: str = ""
    least: int | None = None
    most: int | None = None
    allowed: tuple[str, ...] = ()
    path: bool = False
    required: bool = False

    @property
    def name(self) -> str:
        """`section.key`, as errors and documents name it."""
        return f"{self.section}.{self.key}"

    @property
    def variable(self) -> str:
        """The environment variable that overrides it."""
        return f"{ENV_PREFIX}{self.section}__{self.key}".upper()

    @property
    def type_name(self) -> str:
        """The type in words, for messages and documents."""
        return "true or false" if isinstance(self.default, bool) else "a whole number" if isinstance(self.default, int) else "text"


class Source(NamedTuple):
    """A configuration text and what to call it in messages (its path)."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """Checked values: `values[section][key]` for every row of the table, and where each came from (a source's name, or "default")."""

    values: dict[str, dict[str, Value]]
    origins: dict[str, str]


def load(table: Sequence[Setting], sources: Iterable[Source], env: Mapping[str, str], *, folder: Path) -> Loaded:
    """Read the sources in order, then the environment. `folder`: what relative paths are relative to. Errors: ConfigError, in one line."""
    rows = {(row.section, row.key): row for row in table}
    values: dict[str, dict[str, Value]] = {}
    origins = {row.name: "default" for row in table}
    for row in table:
        values.setdefault(row.section, {})[row.key] = row.default
    for where, row, value in [*_from_sources(rows, sources), *_from_env(rows, env)]:
        values[row.section][row.key] = _checked(row, value, where)
        origins[row.name] = where
    for row in table:
        _finish(row, values, folder)
    return Loaded(values, origins)


def _from_sources(rows: Mapping[tuple[str, str], Setting], sources: Iterable[Source]) -> list[tuple[str, Setting, object]]:
    found: list[tuple[str, Setting, object]] = []
    for source in sources:
        for section, content in _parsed(source).items():
            if not any(row.section == section for row in rows.values()):
                raise _unknown(source.name, "section", section, sorted({row.section for row in rows.values()}))
            if not isinstance(content, dict):
                raise ConfigError(f"{source.name}: {section} is a section: write [{section}] and its settings below.")
            for key, value in content.items():
                if (section, key) not in rows:
                    raise _unknown(source.name, f"setting in [{section}]", key, [k for s, k in rows if s == section])
                found.append((source.name, rows[section, key], value))
    return found


def _parsed(source: Source) -> dict[str, object]:
    try:
        return tomllib.loads(source.text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source.name} is not TOML: {error}.", remedy="Texts stand in quotes, sections in brackets.") from None


def _from_env(rows: Mapping[tuple[str, str], Setting], env: Mapping[str, str]) -> list[tuple[str, Setting, object]]:
    """Only names with both the prefix and `__` are ours; among those an unknown one is a mistake that must not pass unseen."""
    variables = {row.variable: row for row in rows.values()}
    found: list[tuple[str, Setting, object]] = []
    for name in sorted(env):
        if name.startswith(ENV_PREFIX) and "__" in name:
            if name not in variables:
                raise _unknown("the environment", "variable", name, list(variables))
            found.append((name, variables[name], _from_text(variables[name], env[name])))
    return found


def _from_text(row: Setting, text: str) -> object:
    """What an environment variable says, by the type of its row; anything else is left as text for the check to refuse."""
    if isinstance(row.default, bool):
        return True if text.lower() in _TRUE else False if text.lower() in _FALSE else text
    if isinstance(row.default, int):
        digits = text.strip().replace("_", "")
        return int(digits) if digits.isascii() and digits.removeprefix("-").isdigit() and len(digits) < 20 else text
    return text


def _checked(row: Setting, value: object, where: str) -> Value:
    if type(value) is not type(row.default):
        raise ConfigError(f"{where}: {row.name} must be {row.type_name}, not {_shown(value)}.", remedy=_example(row))
    assert isinstance(value, bool | int | str)
    if isinstance(value, int) and not isinstance(value, bool):
        low, high = row.least, row.most
        if (low is not None and value < low) or (high is not None and value > high):
            raise ConfigError(f"{where}: {row.name} is {value}; it must be {_bounds(row)}.")
    if row.allowed and value not in row.allowed:
        near = get_close_matches(str(value), row.allowed, n=1)
        raise ConfigError(
            f"{where}: {row.name} is {_shown(value)}; allowed: {', '.join(row.allowed)}.", remedy=f"Did you mean {near[0]}?" if near else ""
        )
    if isinstance(value, str) and any(ord(c) < 32 for c in value):
        raise ConfigError(f"{where}: {row.name} holds a control character.")
    return value


def _finish(row: Setting, values: dict[str, dict[str, Value]], folder: Path) -> None:
    value = values[row.section][row.key]
    if row.required and value == "":
        raise ConfigError(f"{row.name} is not set.", remedy=f"Set it in [{row.section}] or as {row.variable}: {row.doc}")
    if row.path and value:
        values[row.section][row.key] = str(folder / str(value))


def _unknown(where: str, what: str, name: str, known: Sequence[str]) -> ConfigError:
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    remedy = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
    return ConfigError(f"{where}: {name[:80]!r} is no known {what}.", remedy=remedy)


def _bounds(row: Setting) -> str:
    if row.least is not None and row.most is not None:
        return f"from {row.least} to {row.most}"
    return f"at least {row.least}" if row.least is not None else f"at most {row.most}"


def _shown(value: object) -> str:
    return repr(value)[:80]


def _example(row: Setting) -> str:
    return f"Write it like: {row.key} = {_toml(row.default)}" if row.default != "" else f'Write it like: {row.key} = "…"'


# ------------------------------------------------------------------ out


def render(table: Sequence[Setting], chosen: Mapping[str, Value], head: str) -> str:
    """The commented file: every setting with its meaning; those in `chosen` (by `section.key`) set, the rest commented out."""
    lines = [*(f"# {line}".rstrip() for line in head.strip().splitlines())]
    section = ""
    for row in table:
        if row.section != section:
            section = row.section
            lines += ["", f"[{section}]"]
        lines += [f"# {line}" for line in _wrapped(_described(row))]
        lines.append(f"{row.key} = {_toml(chosen[row.name])}" if row.name in chosen else f"#{row.key} = {_toml(row.default)}")
    return "\n".join(lines) + "\n"


def document(table: Sequence[Setting]) -> str:
    """The table as Markdown, for the documents."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for row in table:
        lines.append(f"| `{row.name}` | `{_toml(row.default)}` | {_described(row)} |")
    return "\n".join(lines) + "\n"


def _described(row: Setting) -> str:
    parts = [row.doc]
    if row.allowed:
        parts.append(f"One of: {', '.join(row.allowed)}.")
    if row.least is not None or row.most is not None:
        parts.append(f"{_bounds(row)[0].upper()}{_bounds(row)[1:]}{f' ({row.unit})' if row.unit else ''}.")
    elif row.unit:
        parts.append(f"In {row.unit}.")
    return " ".join(parts)


def _wrapped(text: str) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > _WIDTH:
            lines.append(line)
            line = ""
        line = f"{line} {word}" if line else word
    return [*lines, line]


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else json.dumps(value, ensure_ascii=False)
