"""What a job may do beside training, when it may start, and what it may wait for."""

import math
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from st_shared.spec import JobSpec, SpecProblems, read_job_file, validate_job

NOOP = {"name": "nothing", "noop": {}}
COMMAND = {"name": "script", "command": {"run": "true"}}
TRAINING = {
    "model": {"family": "pixel_dit"},
    "datasets": [{"name": "digits"}],
    "steps": 10,
}


def problem_of(document):
    with pytest.raises(SpecProblems) as refused:
        validate_job(document)
    [problem] = refused.value.problems
    return problem


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        (NOOP, "noop"),
        (COMMAND, "command"),
        ({"name": "t", "training": TRAINING}, "train"),
        (NOOP | {"command": None, "training": None}, "noop"),
    ],
)
def test_a_job_does_one_thing(document, kind):
    assert validate_job(document).kind == kind


@pytest.mark.parametrize(
    ("document", "seconds"),
    [
        (NOOP | {"noop": {"seconds": 30}}, 30.0),
        (NOOP | {"noop": {"seconds": 30}, "expected_time": "2m"}, 120.0),
        (NOOP, 0.1),
        (COMMAND, None),
        (COMMAND | {"expected_time": "2m"}, 120.0),
    ],
)
def test_a_noop_declares_how_long_it_takes(document, seconds):
    assert validate_job(document).expected_seconds == seconds


@pytest.mark.parametrize(
    ("sections", "field"),
    [
        ({}, "training"),
        ({"training": None, "command": None, "noop": None}, "training"),
        ({"command": {"run": "true"}, "noop": {}}, "noop"),
        ({"training": TRAINING, "noop": {"seconds": 1}}, "noop"),
        ({"training": TRAINING, "command": {"run": "true"}, "noop": {}}, "command"),
    ],
)
def test_none_and_several_are_refused(sections, field):
    problem = problem_of({"name": "x", **sections})
    assert problem.field == field
    assert problem.message == "give exactly one of `training`, `command` and `noop`"


HUGE = "x" * 65_537

BAD = [
    ("command", {"run": ""}, "command.run", "at least 1 character"),
    ("command", {"run": HUGE}, "command.run", "at most 65536 characters"),
    ("command", {"run": 3}, "command.run", "valid string"),
    ("command", {"run": "echo \0"}, "command.run", "U+0000"),
    ("command", {"run": "echo \ud800"}, "command.run", "valid string"),
    ("command", {}, "command.run", "required"),
    ("command", {"rum": "true", "run": "true"}, "command.rum", "did you mean 'run'"),
    ("command", "true", "command", "a mapping of keys"),
    ("noop", {"seconds": -1}, "noop.seconds", "greater than or equal to 0"),
    ("noop", {"seconds": math.nan}, "noop.seconds", "finite"),
    ("noop", {"seconds": math.inf}, "noop.seconds", "finite"),
    ("noop", {"seconds": 86_401}, "noop.seconds", "less than or equal to 86400"),
    ("noop", {"seconds": "long"}, "noop.seconds", "valid number"),
    ("noop", {"hours": 1}, "noop.hours", "known keys: seconds"),
]


@pytest.mark.parametrize(
    ("kind", "section", "field", "mend"), BAD, ids=[f"{case[2]}-{case[3]}" for case in BAD]
)
def test_a_bad_section_is_named_with_its_mend(kind, section, field, mend):
    problem = problem_of({"name": "x", kind: section})
    assert problem.field == field
    assert mend in problem.message


BAD_FIELDS = [
    ("backoff negative", {"retry": {"backoff": -1}}, "retry.backoff", "greater than 0"),
    ("backoff zero", {"retry": {"backoff": "0s"}}, "retry.backoff", "greater than 0"),
    ("backoff nan", {"retry": {"backoff": math.nan}}, "retry.backoff", "finite"),
    ("backoff huge", {"retry": {"backoff": "367d"}}, "retry.backoff", "less than or equal"),
    ("backoff word", {"retry": {"backoff": "soon"}}, "retry.backoff", '"90s"'),
    ("expected nan", {"expected_time": math.nan}, "expected_time", "finite"),
    ("expected infinite", {"expected_time": math.inf}, "expected_time", "finite"),
    ("expected negative", {"expected_time": "-5m"}, "expected_time", '"90s"'),
    ("expected zero", {"expected_time": 0}, "expected_time", "greater than 0"),
    ("expected huge", {"expected_time": 1e308}, "expected_time", "less than or equal"),
    ("preemptible", {"preemptible": "perhaps"}, "preemptible", "valid boolean"),
    ("naive", {"not_before": "2026-01-01T00:00:00"}, "not_before", "timezone"),
    ("naive datetime", {"not_before": datetime(2026, 1, 1)}, "not_before", "timezone"),  # noqa: DTZ001
    ("a day", {"not_before": "2026-01-01"}, "not_before", "time"),
    ("a word", {"not_before": "tomorrow"}, "not_before", "valid datetime"),
    ("no such day", {"not_before": "2026-02-30T00:00:00Z"}, "not_before", "datetime"),
    ("moment nan", {"not_before": math.nan}, "not_before", "datetime"),
    ("after is text", {"after": "job_1"}, "after", "valid list"),
    ("101 parents", {"after": [f"job_{n}" for n in range(101)]}, "after", "at most 100 items"),
    ("empty parent", {"after": [""]}, "after.0", "at least 1 character"),
    ("long parent", {"after": ["j" * 122]}, "after.0", "at most 121 characters"),
    ("parent twice", {"after": ["job_1", "job_2", "job_1"]}, "after.2", "job_1 stands here twice"),
    ("parent is a number", {"after": [7]}, "after.0", "valid string"),
    (
        "parents' failure",
        {"on_parent_failure": "ignore"},
        "on_parent_failure",
        "'cancel' or 'hold'",
    ),
    ("provider empty", {"resources": {"provider": ""}}, "resources.provider", "at least 1"),
    ("provider long", {"resources": {"provider": "p" * 201}}, "resources.provider", "at most 200"),
    ("provider NUL", {"resources": {"provider": "a\0"}}, "resources.provider", "U+0000"),
]


@pytest.mark.parametrize(
    ("fields", "field", "mend"), [case[1:] for case in BAD_FIELDS], ids=[c[0] for c in BAD_FIELDS]
)
def test_a_bad_field_is_named_with_its_mend(fields, field, mend):
    problem = problem_of(NOOP | fields)
    assert problem.field == field
    assert mend in problem.message


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-05-01T12:00:00Z", datetime(2026, 5, 1, 12, tzinfo=UTC)),
        ("2026-05-01 12:00:00+02:00", datetime(2026, 5, 1, 10, tzinfo=UTC)),
        ("2026-05-01T12:00:00.5-01:30", datetime(2026, 5, 1, 13, 30, 0, 500_000, UTC)),
    ],
)
def test_a_moment_has_its_offset(tmp_path, written, meant):
    assert validate_job(NOOP | {"not_before": written}).not_before == meant
    file = tmp_path / "job.yaml"
    file.write_text(f"name: later\nnot_before: '{written}'\nnoop: {{}}\n")
    assert read_job_file(file).not_before == meant


def test_limits_themselves_are_allowed():
    spec = validate_job(
        {
            "name": "most",
            "after": [f"@{'j' * 119}{n}" for n in range(10)] + [f"job_{n}" for n in range(90)],
            "on_parent_failure": "hold",
            "command": {"run": "x" * 65_536},
            "expected_time": "366d",
            "retry": {"max_attempts": 100, "backoff": "1s"},
            "preemptible": False,
        }
    )
    assert len(spec.after) == 100
    assert spec.expected_time == timedelta(days=366).total_seconds()
    assert not spec.preemptible
    assert validate_job(NOOP | {"noop": {"seconds": 86_400}}).noop.seconds == 86_400


def test_defaults_say_that_nothing_is_waited_for():
    spec = validate_job(NOOP)
    assert (spec.after, spec.not_before, spec.expected_time) == ([], None, None)
    assert (spec.on_parent_failure, spec.preemptible, spec.retry.backoff) == ("cancel", True, 10)
    assert (spec.resources.provider, spec.noop.seconds) == ("*", 0)


@pytest.mark.parametrize("document", [NOOP, COMMAND, {"name": "t", "training": TRAINING}])
def test_a_stored_spec_reads_back_the_same(document):
    spec = validate_job(document | {"not_before": "2026-05-01T12:00:00+02:00", "after": ["job_1"]})
    assert JobSpec.model_validate(spec.model_dump(mode="json")) == spec
    assert validate_job(yaml.safe_load(yaml.safe_dump(spec.model_dump(mode="json")))) == spec
