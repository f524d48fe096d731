"""Every mistake is named by its field and says the mend, and all are told at once."""

from pathlib import Path

import pytest
import yaml
from named_fields import stands_in

from st_shared.spec import SpecProblems, read_job_file

GOOD = {
    "name": "digits",
    "training": {
        "model": {"family": "pixel_dit"},
        "datasets": [{"name": "digits"}],
        "steps": 10,
    },
}

SD1 = {"model": {"family": "sd1", "base": "a/b"}, "datasets": [{"name": "digits"}]}


def changed(path: str, value: object) -> dict[str, object]:
    """The good job with one key set; ``None`` removes it."""
    document = yaml.safe_load(yaml.safe_dump(GOOD))
    *parents, last = path.split(".")
    place = document
    for part in parents:
        place = place[int(part)] if part.isdecimal() else place.setdefault(part, {})
    if value is None:
        del place[last]
    else:
        place[last] = value
    return document


BAD = [
    ("unknown key, near", changed("prioritty", "low"), "prioritty", "did you mean 'priority'"),
    ("unknown key, far", changed("training.zzz", 1), "training.zzz", "known keys: "),
    ("unknown nested key", changed("training.optimizer.lr", 1), "training.optimizer.lr", "unknown"),
    ("missing name", changed("name", None), "name", "required"),
    (
        "nothing to do",
        changed("training", None),
        "training",
        "exactly one of `training`, `command`",
    ),
    (
        "buckets of one size",
        changed("training.buckets", {"step": 8}),
        "training",
        "buckets.step means nothing for family pixel_dit",
    ),
    (
        "buckets that do not fit",
        changed("training", SD1 | {"buckets": {"step": 12}}),
        "training",
        "buckets.step 12 must be a multiple of 8 for family sd1",
    ),
    (
        "key of another strategy",
        changed("training.distributed", {"strategy": "fsdp2", "zero_stage": 3}),
        "training",
        "distributed: zero_stage means nothing for strategy fsdp2: drop it",
    ),
    (
        "weights that are not spread",
        changed(
            "training.distributed",
            {"strategy": "deepspeed", "offload_optimizer": "cpu", "offload_parameters": "cpu"},
        ),
        "training",
        "distributed: offload_parameters needs zero_stage 3",
    ),
    (
        "weights elsewhere than the optimiser",
        changed(
            "training.distributed",
            {"strategy": "deepspeed", "zero_stage": 3, "offload_parameters": "cpu"},
        ),
        "training",
        "distributed: offload_parameters needs offload_optimizer too",
    ),
    (
        "an optimiser on disk",
        changed("training.distributed", {"strategy": "deepspeed", "offload_optimizer": "disk"}),
        "training.distributed.offload_optimizer",
        "disk is for frozen weights, of which each step reads only: set cpu",
    ),
    (
        "parts of what is not spread",
        changed("training.checkpoint", {"sharded": True}),
        "training",
        "distributed: with strategy ddp each process holds everything, so that one writes it",
    ),
    (
        "LoRA files for weights that no process has",
        changed(
            "training",
            GOOD["training"]
            | {
                "distributed": {"strategy": "fsdp2"},
                "validation": {
                    "prompts": ["a"],
                    "sweep": {"adapters": [{"name": "other", "path": "/lora"}]},
                },
            },
        ),
        "training",
        "distributed: validation.sweep.adapters are added to whole weights",
    ),
    (
        "optimiser of whole matrices",
        changed(
            "training",
            GOOD["training"]
            | {"optimizer": {"name": "muon"}, "distributed": {"strategy": "fsdp2"}},
        ),
        "training",
        "optimizer.name muon needs them whole: use strategy ddp",
    ),
    (
        "text encoder in parts",
        changed(
            "training",
            SD1 | {"adapter": {"text_encoder": True}, "distributed": {"strategy": "fsdp2"}},
        ),
        "training",
        "adapter.text_encoder needs the encoders whole",
    ),
    (
        "tokens of a ControlNet",
        changed(
            "training",
            SD1
            | {
                "datasets": [{"path": "a", "conditioning": "b"}],
                "adapter": {"kind": "controlnet"},
                "distributed": {"context_parallel": 2},
            },
        ),
        "training",
        "context_parallel does not cut the pictures of a ControlNet",
    ),
    ("aspect", changed("training.buckets.max_aspect", 0.5), "training.buckets.max_aspect", "1"),
    ("missing datasets", changed("training.datasets", None), "training.datasets", "required"),
    (
        "objective of another family",
        changed("training.objective.name", "ddpm"),
        "training",
        "pixel_dit is trained with flow_matching",
    ),
    (
        "adapter of nothing",
        changed("training.adapter", {"kind": "lora"}),
        "training",
        "needs weights to adapt",
    ),
    (
        "misspelt key of an adapter",
        changed("training.adapter", {"rnak": 4}),
        "training.adapter.rnak",
        "did you mean 'rank'",
    ),
    (
        "base that is missing",
        changed("training.model", {"family": "sd1"}),
        "training.model",
        "family 'sd1' needs 'base'",
    ),
    (
        "checksum of a folder",
        changed("training.model", {"family": "sd1", "base": "b", "base_sha256": "0" * 64}),
        "training.model",
        "starts from a folder",
    ),
    (
        "size that the model cannot cut up",
        changed("training.model", {"family": "flux", "base": "b", "config": {"resolution": 520}}),
        "training.model.config.resolution",
        "multiple of 16",
    ),
    (
        "times of another objective",
        changed("training.objective.timestep_sampling", "log_normal"),
        "training",
        "for edm alone",
    ),
    (
        "key of another adapter",
        changed("training.adapter", {"kind": "full", "rank": 4}),
        "training",
        "adapter.rank means nothing",
    ),
    (
        "prediction of another objective",
        changed("training.objective.prediction", "v"),
        "training",
        "for ddpm, not flow_matching",
    ),
    (
        "times that cannot be",
        changed("training.objective.timesteps", {"lowest": 0.5, "highest": 0.2}),
        "training.objective.timesteps",
        "less than highest",
    ),
    (
        "soft weighting without its strength",
        changed("training.objective.loss", {"soft_min_snr": True}),
        "training.objective.loss",
        "give snr_gamma",
    ),
    ("wrong type", changed("training.steps", "many"), "training.steps", "valid integer"),
    ("negative steps", changed("training.steps", -5), "training.steps", "greater than or equal"),
    ("fractional steps", changed("training.steps", 1.5), "training.steps", "integer"),
    ("zero batch", changed("training.batch_size", 0), "training.batch_size", "greater than"),
    ("unknown priority", changed("priority", "asap"), "priority", "'low', 'normal'"),
    ("unknown family", changed("training.model.family", "dalle"), "training.model", "pixel_dit"),
    (
        "unknown family option",
        changed("training.model.config", {"widht": 64}),
        "training.model.config.widht",
        "did you mean 'width'",
    ),
    (
        "family option that does not fit",
        changed("training.model.config", {"width": 100, "heads": 7}),
        "training.model.config",
        "multiple of heads",
    ),
    ("no dataset", changed("training.datasets", []), "training", "give at least one"),
    (
        "dataset without source",
        changed("training.datasets", [{}]),
        "training.datasets.0",
        "exactly one of 'name'",
    ),
    (
        "dataset with two sources",
        changed("training.datasets", [{"name": "a", "path": "b"}]),
        "training.datasets.0",
        "exactly one of 'name'",
    ),
    (
        "dataset name that is a path",
        changed("training.datasets", [{"name": "../etc"}]),
        "training.datasets.0.name",
        "match pattern",
    ),
    ("a section that is none", changed("training.model", 3), "training.model", "a mapping of keys"),
    ("time limit", changed("time_limit", "6 hours"), "time_limit", '"6h"'),
    ("grace", changed("grace", "2h"), "grace", "3600"),
    ("learning rate", changed("training.optimizer.learning_rate", 0), "learning_rate", "greater"),
    (
        "warm-up longer than the run",
        changed("training.schedule.warmup_steps", 99),
        "training",
        "warmup_steps 99 is more than steps 10",
    ),
    ("no slots", changed("resources.slots", 0), "resources.slots", "greater than or equal to 1"),
    ("not finite", changed("training.optimizer.epsilon", float("inf")), "epsilon", "finite"),
    (
        "a sweep of what has no strength",
        changed("training.validation", {"prompts": ["a"], "sweep": {}}),
        "training",
        "validation.sweep is for adapter.kind lora or lycoris, not full",
    ),
    (
        "sizes where there is one",
        changed("training.validation", {"prompts": ["a"], "resolutions": ["8x8"]}),
        "training",
        "validation.resolutions mean nothing for family pixel_dit",
    ),
    (
        "a size of another form",
        changed("training.validation", {"prompts": ["a"], "resolutions": ["8"]}),
        "training.validation.resolutions.0",
        "write WIDTHxHEIGHT",
    ),
    (
        "a script without samples",
        changed("training.validation", {"script": {"run": "true"}}),
        "training.validation",
        "script judges samples: give prompts",
    ),
    (
        "a prompt with an unknown key",
        changed("training.validation", {"prompts": [{"prompt": "a", "sed": 1}]}),
        "training.validation.prompts.0.sed",
        "did you mean 'seed'?",
    ),
    ("validation only, no base", changed("training.steps", 0), "training", "model.base"),
    ("name with a line break", changed("name", "a\nb"), "name", "pattern"),
]


@pytest.mark.parametrize(
    ("document", "field", "mend"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
def test_names_field_and_mend(
    tmp_path: Path, document: dict[str, object], field: str, mend: str
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(document))

    with pytest.raises(SpecProblems) as refused:
        read_job_file(file)

    [problem] = refused.value.problems
    assert problem.field.endswith(field)
    is_absent = "missing" in problem.message or "exactly one of `training`" in problem.message
    assert stands_in(document, problem.field, may_be_missing=is_absent)
    assert mend in problem.message


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"name: [unclosed", "not valid YAML at line"),
        (b"", "found nothing"),
        (b"- a\n- b\n", "found a list"),
        (b"name: \xff\xfe", "not UTF-8"),
        (b"x" * 1_000_001, "larger than"),
        (b"a: &a [*a]\n", "unknown key"),
        (b"name: a\nname: b\n", "line 2, column 1: the key 'name' stands here twice"),
    ],
    ids=["broken yaml", "empty", "a list", "not text", "huge", "recursive yaml", "key twice"],
)
def test_whole_files(tmp_path: Path, raw: bytes, said: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(raw)

    with pytest.raises(SpecProblems, match=said):
        read_job_file(file)


def test_missing_file_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(SpecProblems, match="give the path of a job file"):
        read_job_file(tmp_path / "none.yaml")


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    document = changed("training.steps", -1) | {"priority": "asap", "extra": 1}
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(document))

    with pytest.raises(SpecProblems) as refused:
        read_job_file(file)

    fields = {problem.field for problem in refused.value.problems}
    assert fields == {"training.steps", "priority", "extra"}


def test_durations() -> None:
    from st_shared.spec import validate_job

    assert validate_job({**GOOD, "time_limit": "1h30m"}).time_limit == 5400
    assert validate_job({**GOOD, "time_limit": 90}).time_limit == 90
    assert validate_job({**GOOD, "grace": "10m"}).grace == 600
