"""Where trackers send figures, as rules of ``output_path`` look at it."""

import pytest

from st_controller.domain.policy.asking import asked
from st_controller.domain.policy.resource_rules import (
    Effect,
    Resource,
    ResourceRule,
    ResourceRules,
    Subject,
    SubjectKind,
)
from st_shared.spec.job import JobSpec

ANN = Subject("lab", "vision", "ann", "researcher")


def job(*trackers, **fields) -> JobSpec:
    training = {
        "model": {"family": "pixel_dit"},
        "datasets": [{"path": "/data"}],
        "trackers": list(trackers),
    }
    return JobSpec.model_validate({"name": "n", "training": training, **fields})


def places(*trackers, **fields) -> list[tuple[str, str]]:
    found = asked(job(*trackers, **fields))
    return [(each.field, each.value) for each in found if each.resource is Resource.OUTPUT_PATH]


def denied(spec, effect, pattern) -> list[str]:
    rule = ResourceRule(
        "r", None, SubjectKind.EVERYONE, "", Resource.OUTPUT_PATH, pattern, Effect(effect)
    )
    return [each.field for each in ResourceRules((rule,)).judge(ANN, asked(spec)).violations]


def wandb(**options):
    return {"kind": "wandb", "project": "faces", "options": options}


def mlflow(**options):
    return {"kind": "mlflow", "project": "faces", "options": options}


def test_what_stays_with_the_run_asks_nothing():
    offline = wandb(mode="offline", entity="lab")
    assert places({"kind": "jsonl"}, {"kind": "tensorboard"}, offline) == []


def test_each_tracker_has_an_address():
    custom = {"kind": "custom", "module": "ours", "project": "faces"}
    assert places(wandb(entity="lab"), wandb(), mlflow(), custom) == [
        ("training.trackers.0", "wandb://lab/faces"),
        ("training.trackers.1", "wandb:///faces"),
        ("training.trackers.2", "mlflow:///faces"),
        ("training.trackers.3", "custom://ours/faces"),
    ]
    assert places(mlflow(tracking_uri="https://mlflow.lab/")) == [
        ("training.trackers.0.options.tracking_uri", "https://mlflow.lab/faces")
    ]


def test_a_destination_is_forbidden_or_alone_allowed():
    assert denied(job(wandb(entity="lab")), "deny", "wandb://*") == ["training.trackers.0"]
    assert denied(job(mlflow()), "deny", "wandb://*") == []
    assert denied(job(wandb(entity="lab")), "allow", "wandb://lab/*") == []
    assert denied(job(wandb()), "allow", "wandb://lab/*") == ["training.trackers.0"]
    server = job(mlflow(tracking_uri="https://mlflow.lab"))
    assert denied(server, "allow", "https://mlflow.lab/*") == []
    other = job(mlflow(tracking_uri="https://mlflow.evil"))
    assert denied(other, "allow", "https://mlflow.lab/*") == [
        "training.trackers.0.options.tracking_uri"
    ]


@pytest.mark.parametrize(
    ("tracker", "field"),
    [
        (wandb(entity="lab", settings={"base_url": "https://evil"}), ".options.settings"),
        (wandb(mode="offline", settings={"mode": "online"}), ".options.settings"),
        (wandb(entity="lab/x"), ""),
        (wandb() | {"project": "lab/faces"}, ""),
        (mlflow(logging_dir="s3://theirs/x"), ".options.logging_dir"),
        (mlflow(tags={"x": ["//evil/x"]}), ".options.tags"),
        (mlflow(tracking_uri="https://mlflow.lab/../x"), ".options.tracking_uri"),
        (mlflow(tracking_uri=["https://evil"]), ".options.tracking_uri"),
        (mlflow(tracking_uri="databricks"), ".options.tracking_uri"),
    ],
)  # fmt: skip
def test_nothing_leads_it_elsewhere_where_rules_apply(tracker, field):
    assert f"training.trackers.0{field}" in denied(job(tracker), "allow", "*")


@pytest.mark.parametrize(
    ("variable", "is_refused"),
    [("WANDB_BASE_URL", True), ("WANDB_ENTITY", True), ("MLFLOW_TRACKING_URI", True),
     ("WANDB_API_KEY", False), ("MLFLOW_TRACKING_TOKEN", False), ("HF_TOKEN", False)],
)  # fmt: skip
def test_no_secret_leads_it_elsewhere(variable, is_refused):
    secrets = {variable: "some-secret"}
    found = denied(job(wandb(entity="lab"), secrets=secrets), "allow", "*")
    assert found == ([f"secrets.{variable}"] if is_refused else [])
    assert denied(job({"kind": "jsonl"}, secrets=secrets), "allow", "*") == []
