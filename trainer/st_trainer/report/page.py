"""Puts the page together; whatever a person wrote is text in it, never markup."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from st_shared.redaction import Redactor, from_environment
from st_trainer.report.curve import Line, chart, shown
from st_trainer.report.media import Row, samples_by_step, step_label, sweeps
from st_trainer.report.record import Record
from st_trainer.validation.previews import preview_sets

_JUDGED = ("script.", "post_checkpoint.", "post_upload.")
"""How the names of metrics begin that come out of scripts and hooks."""
_MOST_COLUMNS = 12


@dataclass(frozen=True)
class Facts:
    """What a report tells beside what was recorded."""

    title: str
    outcome: str
    step: int
    steps: int
    facts: Mapping[str, str]
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    written: datetime
    error: str | None = None


def page(facts: Facts, record: Record, previews: Path) -> str:
    """The report as HTML, without the secrets that this process was given."""
    redactor, sets = from_environment(os.environ), preview_sets(previews)
    rows, left_out = samples_by_step(sets)
    steps, judged = _judged(record)
    config = redactor.json(dict(facts.config))  # before YAML folds and quotes what is long or odd
    text = redactor.json(
        {
            "title": facts.title,
            "error": facts.error,
            "facts": [list(pair) for pair in facts.facts.items()],
            "config": yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
            "environment": [list(pair) for pair in facts.environment.items()],
            "remarks": [{"level": each.level, "text": each.text} for each in record.remarks],
        }
    )
    return _template().render(
        **text,
        outcome=facts.outcome,
        step=f"{facts.step:,}",
        steps=f"{facts.steps:,}",
        written=facts.written.strftime("%Y-%m-%d %H:%M:%S %Z"),
        charts=charts(record),
        metrics_left_out=record.metrics_left_out,
        samples=_redacted(rows, redactor),
        steps_left_out=left_out,
        sweeps=[(step_label(step), _redacted(found, redactor)) for step, found in sweeps(sets)],
        judged=judged,
        judged_steps=[f"{step:,}" for step in steps],
    )


def _redacted(rows: Sequence[Row], redactor: Redactor) -> list[Row]:
    return [replace(row, prompt=redactor.text(row.prompt)) for row in rows]


def charts(record: Record) -> list[Markup]:
    """A chart for each metric; those of one kind, such as losses, share one."""
    groups: dict[str, list[Line]] = {}
    for name in sorted(record.metrics, key=_importance):
        groups.setdefault(_group(name), []).append(Line(name, record.points(name)))
    return [chart(lines) for lines in groups.values()]


def _importance(name: str) -> int:
    """The loss comes first, what scripts say last; the rest as it came."""
    return 0 if _group(name) == "loss" else 2 if name.startswith(_JUDGED) else 1


def _group(name: str) -> str:
    if name in {"loss", "evaluation_loss"}:
        return "loss"
    return "parts" if name.startswith("evaluation_loss_") else name


def _judged(record: Record) -> tuple[list[int], list[tuple[str, list[str]]]]:
    """The newest steps at which scripts said something, and each number by name."""
    found = {name: dict(record.points(name)) for name in record.metrics if name.startswith(_JUDGED)}
    steps = sorted({step for points in found.values() for step in points})[-_MOST_COLUMNS:]
    rows = []
    for name, points in found.items():
        rows.append((name, [shown(points[step]) if step in points else "" for step in steps]))
    return steps, rows


@cache
def _template() -> Template:
    loader = FileSystemLoader(Path(__file__).parent)
    surroundings = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return surroundings.get_template("report.html.jinja")
