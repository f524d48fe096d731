"""Which changes are proposed so that a run fits, and how accelerators are named."""

import json
from collections.abc import Hashable
from dataclasses import replace
from itertools import combinations
from math import inf

import pytest
from click.testing import CliRunner
from fixtures.tiny import TINY

from st_shared.spec import TrainingSpec
from st_shared.spec.memory import SpeedSpec
from st_trainer.cli import st_train
from st_trainer.errors import BadSpecError
from st_trainer.planning.accelerators import (
    ACCELERATORS,
    Accelerator,
    accelerator,
    needed,
    smallest,
)
from st_trainer.planning.changes import (
    Change,
    applied,
    more_processes,
)
from st_trainer.planning.changes import possible as _steps
from st_trainer.planning.estimate import Estimate
from st_trainer.planning.picture import WIDTH, picture
from st_trainer.planning.proposal import proposed
from st_trainer.planning.step_time import step_seconds

SPEC = TrainingSpec.model_validate(
    {
        "model": {"family": "sd1", "base": "b"},
        "datasets": [{"path": "x"}],
        "batch_size": 4,
    }
)


def estimate(spec):
    """Round numbers that move as the true ones do; those are held to runs in test_estimate.py."""
    width = 4 if spec.precision == "fp32" else 2
    kinds = {None: width, "int8": 1, "fp8": 1, "nf4": 0.5, "int4": 0.5}
    share = 0.25 if spec.memory.gradient_checkpointing else 1
    base = int(10_000 * kinds[spec.memory.quantization.format])
    waiting = base * 9 // 10 if spec.memory.offload.level else 0
    moments = 1_000 if "8bit" in spec.optimizer.name else 4_000
    return Estimate(
        base=base - waiting,
        adapter=2_000,
        gradients=2_000,
        optimizer=0 if spec.optimizer.offload else moments,
        average=0 if spec.ema.device == "cpu" else 2_000,
        activations=int(spec.batch_size * 1_000 * width * share),
        text_encoders=0,
        image_encoder=0,
        vae=0,
        host=waiting,
        operations=10**12,
        touched=10**9,
        kernels=1_000,
        moved=10**9,
        transferred=0,
    )


def room(size):
    """An accelerator in which a run may take so many bytes."""
    like = ACCELERATORS["L4-24GB"]
    memory = int((size + 2**29) / 0.97) + 2
    return Accelerator("small", memory, like.half, like.single, like.bandwidth)


def test_what_fits_is_left_alone_and_else_the_cheapest_changes_are_proposed():
    spec = SPEC
    whole = estimate(spec).total
    kept = proposed(spec, room(whole), estimate)
    assert (kept.fits, kept.changes, kept.spec) == (True, (), spec)
    found = proposed(spec, room(int(whole * 0.8)), estimate)
    assert found.fits
    assert [each.field for each in found.changes] == ["precision"]
    assert found.estimate.total <= whole * 0.8
    assert estimate(applied(spec, found.changes)) == found.estimate


def test_changes_that_are_not_needed_are_taken_back():
    """Without any of those that are proposed it would not fit."""
    spec = SPEC
    whole = estimate(spec).total
    tight = proposed(spec, room(int(whole * 0.4)), estimate)
    assert tight.fits
    for change in tight.changes:
        rest = tuple(each for each in tight.changes if each is not change)
        without = applied(spec, rest)
        assert without is None or estimate(without).total > whole * 0.4


@pytest.mark.parametrize("share", [0.5, 0.27])
def test_no_milder_set_of_changes_would_fit(share):
    """Of all sets of changes, none whose dearest ones are cheaper fits."""
    limit = int(estimate(SPEC).total * share)
    found = proposed(SPEC, room(limit), estimate)
    assert found.fits
    steps = [*_steps(SPEC, room(limit))]
    best = min(
        sorted(chosen, reverse=True)
        for count in range(len(steps) + 1)
        for chosen in combinations(range(len(steps)), count)
        if _total(chosen, steps) <= limit
    )
    changed = SPEC
    for place in reversed(best):
        changed = applied(changed, steps[place](changed))
    assert {(each.field, each.value) for each in found.changes} == _differences(changed)


def _total(chosen, steps):
    spec = SPEC
    for place in chosen:
        changes = steps[place](spec)
        changed = applied(spec, changes)
        if not changes or changed is None:
            return inf
        spec = changed
    return estimate(spec).total


def _differences(spec):
    """Keys and values of ``spec`` that are not those of ``SPEC``, in full names."""

    def flat(value, name=""):
        if isinstance(value, dict):
            parts = [flat(each, f"{name}.{key}") for key, each in value.items()]
            return {name: value for part in parts for name, value in part.items()}
        return {name[1:]: value if isinstance(value, Hashable) else str(value)}

    before, after = flat(SPEC.model_dump()), flat(spec.model_dump())
    return {(name, value) for name, value in after.items() if before[name] != value}


TOGETHER = applied(SPEC, (Change("distributed.processes", 4, ""),))


def spread(spec):
    """``estimate`` of one of several processes, in which the strategies differ as they truly do."""
    found, asked, count = estimate(spec), spec.distributed, spec.distributed.processes or 1
    whole = replace(found, processes=count, activations=found.activations // asked.context_parallel)
    if asked.strategy == "ddp":
        return replace(whole, buffers=2_000 if count > 1 else 0)
    part = replace(whole, optimizer=whole.optimizer // count, gradients=2_000 // count, buffers=500)
    if asked.strategy == "deepspeed":
        return replace(part, optimizer=0 if asked.offload_optimizer == "cpu" else part.optimizer)
    if asked.offload_parameters == "cpu":
        return replace(part, base=0, adapter=0, gradients=0, optimizer=0, average=0)
    return replace(part, base=whole.base // count, adapter=2_000 // count, average=2_000 // count)


@pytest.mark.parametrize(
    ("share", "way"),
    [
        (0.4, {"strategy": "fsdp2"}),
        (0.1, {"strategy": "fsdp2", "offload_parameters": "cpu"}),
    ],
)
def test_several_processes_get_one_way_to_spread_and_need_each_change(share, way):
    limit = int(spread(TOGETHER).total * share)
    found = proposed(TOGETHER, room(limit), spread)
    assert found.fits
    assert found.estimate.total <= limit
    assert found.spec.distributed.model_dump(include=way.keys()) == way
    for change in found.changes:
        fewer = applied(TOGETHER, tuple(each for each in found.changes if each is not change))
        assert fewer is None or spread(fewer).total > limit


def test_spreading_comes_before_rounding_and_only_where_there_are_several():
    limit = int(spread(TOGETHER).total * 0.4)
    fields = {each.field: each.value for each in proposed(TOGETHER, room(limit), spread).changes}
    assert fields["distributed.strategy"] == "fsdp2"
    assert "memory.quantization.format" not in fields
    alone = proposed(SPEC, room(int(spread(SPEC).total * 0.4)), spread)
    assert alone.fits
    assert not [each for each in alone.changes if each.field.startswith("distributed")]


def test_what_one_accelerator_cannot_hold_is_spread_over_the_fewest_that_do():
    """As many samples are learned from in a step as before."""
    limit = 4_000
    assert not proposed(SPEC, room(limit), lambda spec: replace(estimate(spec), host=0)).fits
    found = proposed(SPEC, room(limit), spread)
    assert found.fits
    count = found.spec.distributed.processes
    fields = {each.field: each.value for each in found.changes}
    assert fields["distributed.processes"] == count == 2
    assert found.spec.distributed.strategy == "fsdp2"
    assert count * found.spec.batch_size * found.spec.accumulation == SPEC.batch_size
    assert applied(SPEC, found.changes) == found.spec


def test_more_processes_say_where_a_step_learns_from_more_samples():
    odd = applied(SPEC, (Change("batch_size", 3, ""),))
    [change] = more_processes(odd, 2)
    assert "2 times the samples" in change.cost
    parts = applied(SPEC, (Change("accumulation", 6, ""),))
    assert [(each.field, each.value) for each in more_processes(parts, 2)] == [
        ("distributed.processes", 2),
        ("accumulation", 3),
    ]


def test_nothing_is_proposed_that_a_run_refuses():
    """Offloaded blocks are for one process, and tokens are not shared without a plan for it."""
    offload = (
        Change("memory.gradient_checkpointing", 1, ""),
        Change("memory.offload.level", "block", ""),
    )
    assert applied(SPEC, offload) is not None
    assert applied(TOGETHER, offload) is None

    def refusing(spec):
        if spec.distributed.context_parallel > 1:
            raise BadSpecError("training.distributed.context_parallel: no plan")
        return spread(spec)

    found = proposed(TOGETHER, room(100), refusing)
    assert not found.fits
    assert found.spec.distributed.context_parallel == 1
    assert found.spec.memory.offload.level is None


def test_processes_that_share_tokens_take_the_samples_one_after_the_other():
    """Activations alone are too many: neither rounding nor spreading weights would do."""

    def long(spec):
        return replace(spread(spec), activations=100_000 // spec.distributed.context_parallel)

    found = proposed(TOGETHER, room(45_000), long)
    assert found.fits
    assert found.spec.distributed.context_parallel == found.spec.accumulation == 4


def test_what_would_be_needed_is_told():
    limit = 24 * 2**30
    assert smallest(limit).memory == 32 * 2**30
    like = accelerator(str(needed(limit)))
    assert limit <= like.usable <= limit + 2
    assert smallest(10**15) is None


def test_a_picture_shows_parts_one_after_the_other_and_the_edge_of_the_accelerator():
    found = estimate(SPEC)
    fitting = [*picture(found, room(2 * found.total))]
    cells = [line[43:] for line in fitting]
    assert "▒" not in "".join(cells)
    assert cells[0].startswith("█")
    assert cells[-1].count("█") == WIDTH // 2
    assert cells[-1].endswith("| 50%")
    over = [*picture(found, room(found.total // 2))][-1]
    assert over.count("█") == over.count("▒") == WIDTH // 2
    assert over.endswith(" 200%")
    assert "|" not in "".join(picture(found))


def test_where_nothing_helps_the_nearest_is_told():
    found = proposed(SPEC, room(1000), estimate)
    assert not found.fits
    assert found.estimate.total < estimate(SPEC).total / 2


def test_a_step_takes_as_long_as_the_slowest_of_passes_memory_and_what_starts_them():
    spec, found = SPEC, replace(estimate(SPEC), transferred=7, touched=0)
    slow = Accelerator("slow", 1, 1e9, 1e6, 1e15)
    assert step_seconds(spec, found, slow) == pytest.approx(found.operations / 0.4e6)
    narrow = Accelerator("narrow", 1, 1e15, 1e15, 1e3)
    assert step_seconds(spec, found, narrow) == pytest.approx(found.moved / 0.7e3)
    touching = replace(found, touched=5 * found.moved)
    assert step_seconds(spec, touching, narrow) == pytest.approx(touching.touched / 0.7e3)
    fast = Accelerator("fast", 1, 1e18, 1e18, 1e18)
    assert step_seconds(spec, found, fast) == pytest.approx(1_000 * 25e-6, rel=1e-3)
    compiled = SPEC.model_copy(update={"speed": SpeedSpec(compile=True)})
    assert step_seconds(compiled, found, fast) < 0.6 * step_seconds(spec, found, fast)


@pytest.mark.parametrize(
    ("text", "memory"),
    [("h100-80gb", 80 * 2**30), ("24GB", 24 * 10**9), ("24GiB", 24 * 2**30), ("1e9", 10**9)],
)
def test_an_accelerator_is_a_name_or_bytes(text, memory):
    assert accelerator(text).memory == memory


@pytest.mark.parametrize("text", ["H1000", "-3", "0", "nan", "1e999"])
def test_what_is_neither_is_refused(text):
    with pytest.raises(ValueError, match="is no accelerator: give bytes, such as 24GB"):
        accelerator(text)


@pytest.fixture
def job(base_folder, tmp_path):
    file = tmp_path / "job.yaml"
    model = {"family": "sd1", "base": str(base_folder("sd1")), "config": TINY["sd1"].config}
    file.write_text(
        json.dumps({"name": "a", "training": {"model": model, "datasets": [{"path": "x"}]}})
    )
    return file


def test_the_command_tells_people_and_programs(job):
    said = CliRunner().invoke(st_train, ["plan", str(job)])
    assert said.exit_code == 0
    assert "frozen weights" in said.output
    assert "together" in said.output
    found = CliRunner().invoke(st_train, ["plan", str(job), "--gpu", "H100-80GB", "--json"])
    plan = json.loads(found.output)
    assert plan["fits"]
    assert plan["proposal"]["changes"] == []
    assert plan["estimate"]["total_bytes"] == sum(plan["estimate"]["bytes"].values())
    assert plan["estimate"]["step_seconds"] > 0


def test_the_command_refuses_what_is_no_accelerator_or_no_model(job):
    refused = CliRunner().invoke(st_train, ["plan", str(job), "--gpu", "H1000"])
    assert refused.exit_code == 2
    assert "is no accelerator" in refused.output
    job.write_text(job.read_text().replace("sd1", "sdxl", 1))
    wrong = CliRunner().invoke(st_train, ["plan", str(job), "--json"])
    assert wrong.exit_code == 2
    [problem] = json.loads(wrong.output)["problems"]
    assert problem["field"] == "training.model.base"


def test_the_command_tells_of_each_process(job):
    document = json.loads(job.read_text())
    document["training"]["distributed"] = {"strategy": "fsdp2"}
    document["resources"] = {"slots": 3}
    job.write_text(json.dumps(document))
    said = CliRunner().invoke(st_train, ["plan", str(job), "--gpu", "H100-80GB"])
    assert "each of 3 processes, fsdp2" in said.output
    assert "buffers of the strategy" in said.output
    assert "rank 2: " in said.output
    asked = ["plan", str(job), "--processes", "5", "--gpu", "H100-80GB", "--json"]
    plan = json.loads(CliRunner().invoke(st_train, asked).output)["estimate"]
    assert (plan["processes"], plan["strategy"]) == (5, "fsdp2")
    assert (plan["ranks"][0]["first"], plan["ranks"][-1]["last"]) == (0, 4)
    assert plan["ranks"][0]["total"] == plan["total_bytes"]
    assert plan["ranks"][-1]["total"] < plan["total_bytes"]
    assert plan["sent_bytes_per_step"] > 0


def test_the_command_refuses_what_a_run_in_so_many_processes_refuses(job):
    document = json.loads(job.read_text())
    document["training"]["memory"] = {
        "gradient_checkpointing": 1,
        "offload": {"level": "block"},
    }
    document["training"]["distributed"] = {"processes": 2}
    job.write_text(json.dumps(document))
    for arguments, field in (
        ([], "training.memory.offload.level"),
        (["--processes", "3"], "training.distributed.processes"),
    ):
        found = CliRunner().invoke(st_train, ["plan", str(job), "--json", *arguments])
        assert found.exit_code == 2
        assert [each["field"] for each in json.loads(found.output)["problems"]] == [field]


@pytest.mark.families
def test_the_command_says_when_nothing_makes_it_fit(job):
    found = CliRunner().invoke(st_train, ["plan", str(job), "--gpu", "537000000"])
    assert found.exit_code == 6
    assert "nothing that is known here makes it fit" in found.output
    assert "training.precision: bf16" in found.output
