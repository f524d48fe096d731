"""What the page of a report says, and what it must not."""

from datetime import UTC, datetime

import numpy as np
import pytest

from st_shared.protocol.journal import LogEvent
from st_shared.spec.validation import PromptSpec
from st_trainer.data.images import Images
from st_trainer.report.page import Facts, page
from st_trainer.report.record import Record
from st_trainer.validation.previews import write_previews
from st_trainer.validation.samples import Drawn

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SECRET = "tell-nobody <this>"
PICTURES = Images(3, 16, 16)


def facts(**changes):
    known = {
        "title": "a run",
        "outcome": "failed",
        "step": 2,
        "steps": 2,
        "facts": {"base": "a model"},
        "config": {"seed": 1},
        "environment": {"torch": "2"},
        "written": NOW,
    }
    return Facts(**known | changes)


def record_of(message):
    record = Record()
    record.hear(LogEvent(seq=1, at=NOW, level="warning", message=message))
    return record


PLACES = {
    "title": lambda text, _: (facts(title=text), Record()),
    "error": lambda text, _: (facts(error=text), Record()),
    "facts": lambda text, _: (facts(facts={"base": text}), Record()),
    "config": lambda text, _: (facts(config={"model": {"base": text}}), Record()),
    "environment": lambda text, _: (facts(environment={"device": text}), Record()),
    "remark": lambda text, _: (facts(), record_of(text)),
    "samples": lambda text, folder: (facts(), with_prompt(folder, "samples", text)),
    "sweep": lambda text, folder: (facts(), with_prompt(folder, "sweep", text)),
}


def with_prompt(folder, kind, text):
    drawn = Drawn(0, PromptSpec(prompt=text), np.zeros((3, 16, 16), np.uint8), None)
    write_previews(folder, kind, 1, [("base alone", drawn)], PICTURES)
    return Record()


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_is_named_and_not_told_wherever_it_stands(tmp_path, monkeypatch, place):
    """Whoever wrote it there: a title and a prompt pass no journal, which would take it out."""
    told, record = PLACES[place](f"with {SECRET} in it", tmp_path)
    plain = page(told, record, tmp_path)
    assert "tell-nobody" in plain
    assert "<this>" not in plain
    monkeypatch.setenv("WORD", SECRET)
    monkeypatch.setenv("ST_SECRET_NAMES", "WORD")
    html = page(told, record, tmp_path)
    assert "tell-nobody" not in html
    assert "with [secret WORD] in it" in html


def test_a_secret_is_found_before_the_settings_are_quoted_and_folded(tmp_path, monkeypatch):
    secret = "it's a: 'word' " + "of many letters " * 8
    monkeypatch.setenv("WORD", secret)
    monkeypatch.setenv("ST_SECRET_NAMES", "WORD")
    html = page(facts(config={"prompts": [secret]}), Record(), tmp_path)
    assert "[secret WORD]" in html
    assert "many letters" not in html
