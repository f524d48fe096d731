"""A run with everything that validation can do, beside the same run without any of it."""

import json
import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from browser import BINARY, Browser
from fixtures.tiny_clip import make_clip
from huggingface_hub import constants
from PIL import Image

from st_shared.protocol.journal import ExitCode, journal_event
from st_shared.spec import TrainingSpec
from st_shared.spec.validation import ClipSpec
from st_trainer.checkpoint import complete_checkpoints, verify_checkpoint
from st_trainer.command import run_command
from st_trainer.validation.clip import ClipScore
from st_trainer.validation.previews import preview_sets

LIBRARY = """
marked: {prompt: "a <script>document.title = 'broken'</script>", seed: 3, adapter_strength: 0}
wide: {prompt: "a dog", negative: "ugly, bad", resolution: 32x16, guidance: 2}
"""
SCORE = """
test -f "$1/003.png"
test "$ST_STEP" = 0 || test "$2" = "$ST_RUN_DIR/checkpoints/step-00000$ST_STEP"
test "$ST_STEP" = 0 || test -f "$2/manifest.json"
cp -r "$1" "$ST_RUN_DIR/seen-$ST_STEP"
echo "$SECRET_WORD" >&2
echo '{"pictures": '"$(ls "$1" | grep -c png)"', "step": '"$ST_STEP"'}'
"""


def spec_of(root, base, validation, **more):
    held = {"path": str(root / "held"), "evaluation": True}
    return TrainingSpec.model_validate(
        {
            "model": {"family": "sd1", "base": str(base), "config": {"resolution": 16}},
            "datasets": [{"path": str(root / "pictures")}, held],
            "adapter": {"rank": 2, "dropout": 0.2},
            "optimizer": {"learning_rate": 0.05},
            "objective": {"caption_dropout": 0.3},
            "steps": 4,
            "batch_size": 2,
            "log_every": 1,
            "checkpoint": {"every": 2, "keep_last": 1},
            "validation": validation,
            **more,
        }
    )


def carry_out(spec, root):
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()  # a new process would not have them
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    environment = {"SECRET_WORD": "tell-nobody", "ST_SECRET_NAMES": "SECRET_WORD"}
    os.environ.update(environment)
    try:
        return run_command(
            spec, root, {}, environment=os.environ, resume="none", stop=lambda: False
        )
    finally:
        for name in environment:
            del os.environ[name]
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def world(tmp_path_factory, base_folder):
    root = tmp_path_factory.mktemp("validation")
    base = base_folder("sd1")
    for name in ("pictures", "held"):
        (root / name).mkdir()
        for index in range(3):
            colour = (80 * index, 90, 200)
            Image.new("RGB", (16, 16), colour).save(root / name / f"{index}.png")
            (root / name / f"{index}.txt").write_text(f"colour {index}")
    (root / "library.yaml").write_text(LIBRARY)
    make_clip(root / "clip", base)
    return root, base


@pytest.fixture(scope="module")
def rich(world):
    root, base = world
    first = carry_out(spec_of(root, base, {"every": 100, "prompts": []}), root / "before")
    other = {"name": "other", "path": first.outputs["weights"], "strength": 2}
    validation = {
        "prompts": ["a house by the sea", {"prompt": "colour 1", "seed": 5}],
        "libraries": [str(root / "library.yaml")],
        "every": 2,
        "sampler_steps": 2,
        "guidance": 3,
        "clip": {"model": str(root / "clip")},
        "script": {"run": SCORE},
        "sweep": {
            "modes": ["none", "each", "combined"],
            "strengths": [1, 2],
            "adapters": [other],
            "prompts": 1,
        },
    }
    hooks = {
        "post_checkpoint": {"run": "test -f $1/manifest.json; echo '{\"ok\": 1}'"},
    }
    result = carry_out(spec_of(root, base, validation, hooks=hooks), root / "run")
    assert result.exit_code == ExitCode.SUCCEEDED, result.error
    return result


def events(root, kind):
    lines = (root / "journal.ndjson").read_bytes().splitlines()
    found = (journal_event.validate_json(line) for line in lines)
    return [event for event in found if event.kind == kind]


def metric(root, name):
    return {
        event.step: event.values[name] for event in events(root, "metric") if name in event.values
    }


def test_training_ends_with_the_same_weights_as_without_any_validation(rich, world):
    root, base = world
    plain = spec_of(root, base, {"every": 100, "prompts": []})
    datasets = plain.datasets[:1]
    carry_out(plain.model_copy(update={"datasets": datasets}), root / "plain")
    states = []
    for run in (rich.run_dir, root / "plain"):
        manifest = verify_checkpoint(complete_checkpoints(run / "checkpoints")[0])
        states.append({each.path: each.sha256 for each in manifest.files})
    for state in states:
        state.pop("state.json")  # names the samples
    assert states[0] == states[1]
    assert len(states[0]) == 4


def test_every_prompt_is_drawn_before_training_and_at_each_step_that_is_due(rich):
    assert [each.path for each in events(rich.run_dir, "sample")] == [
        *("samples/step-000000.png", "samples/step-000000-32x16.png"),
        *("samples/step-000002.png", "samples/step-000002-32x16.png"),
        *("samples/step-000004.png", "samples/step-000004-32x16.png"),
        "samples/step-000004-sweep.png",
    ]
    assert not list((rich.run_dir / "held").iterdir())
    assert not list((rich.run_dir / "judged").iterdir())


def test_scores_of_clip_and_script_and_hook_are_metrics(rich):
    assert metric(rich.run_dir, "script.pictures") == {0: 4, 2: 4, 4: 4}
    assert metric(rich.run_dir, "script.step") == {0: 0, 2: 2, 4: 4}
    assert metric(rich.run_dir, "post_checkpoint.ok") == {2: 1, 4: 1}
    scores = metric(rich.run_dir, "clip_score")
    assert list(scores) == [0, 2, 4]
    assert all(0 <= score <= 100 for score in scores.values())
    assert list(metric(rich.run_dir, "evaluation_loss_0.25-0.5")) == [2, 4]


def test_each_score_is_that_of_the_pictures_and_their_own_prompts(rich, world):
    """Of what the script was given, which names them; those of an untrained step differ."""
    score, scores = ClipScore(ClipSpec(model=str(world[0] / "clip")), torch.device("cpu")), {}
    for step in (0, 2, 4):
        folder = rich.run_dir / f"seen-{step}"
        told = json.loads((folder / "prompts.json").read_text())
        assert [each["prompt"] for each in told][::3] == ["a house by the sea", "a dog"]
        pictures = [np.asarray(Image.open(folder / each["file"])).copy() for each in told]
        samples = [torch.from_numpy(each).permute(2, 0, 1) for each in pictures]
        scores[step] = np.mean(score(samples, [each["prompt"] for each in told]))
    assert metric(rich.run_dir, "clip_score") == pytest.approx(scores, rel=1e-5)
    assert scores[0] != scores[4]


def test_a_prompt_of_strength_0_stays_as_before_training_and_others_do_not(rich):
    sets = {each.step: each for each in preview_sets(rich.run_dir / "previews")
            if each.kind == "samples"}  # fmt: skip
    before, after = (
        {each.row: (sets[step].folder / each.picture).read_bytes() for each in sets[step].previews}
        for step in (0, 4)
    )
    same = [row for row, content in after.items() if content == before[row]]
    assert len(after) == 4
    assert [row.partition(":")[0] for row in same] == ["marked"]


def test_a_sweep_shows_the_base_each_adapter_and_all_of_them(rich):
    found = next(each for each in preview_sets(rich.run_dir / "previews") if each.kind == "sweep")
    pixels = {
        each.column: np.asarray(Image.open(found.folder / each.picture)).astype(int)
        for each in found.previews
    }
    assert list(pixels) == [
        *("base alone", "trained x 1", "other x 2", "all x 1"),
        *("trained x 2", "other x 4", "all x 2"),
    ]
    first = next(each for each in preview_sets(rich.run_dir / "previews") if each.step == 0)
    baseline = np.asarray(Image.open(first.folder / first.previews[0].picture)).astype(int)
    assert (pixels.pop("base alone") == baseline).all()
    assert all((each != baseline).any() for each in pixels.values())
    # The other is this very training without what draws, so only its strength tells them apart.
    alike = np.abs(pixels.pop("trained x 2") - pixels["other x 2"]).mean()
    pairs = combinations(pixels.values(), 2)
    assert alike < 1 < min(np.abs(one - other).mean() for one, other in pairs)


@pytest.mark.skipif(BINARY is None, reason="no Chromium here")
def test_the_report_is_one_file_that_a_browser_shows_without_a_network(rich, tmp_path):
    report = Path(rich.outputs["report"])
    html = report.read_text()
    assert "tell-nobody" not in html
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org", "")
    browser = Browser(tmp_path / "profile")
    try:
        browser.size(390, 844)
        browser.open(report.as_uri())
        assert browser.complaints == []
        assert browser.run("document.title").startswith("sd1, lora")
        assert browser.run("document.querySelectorAll('svg path').length") > 8
        broken = "[...document.images].filter(e => !e.naturalWidth).length"
        assert browser.run(broken) == 0
        assert browser.run("document.images.length") == 3 * 4 + 7
        assert browser.run("document.documentElement.scrollWidth") <= 390
        cells = "[...document.querySelectorAll('.scores th')].map(e => e.clientHeight)"
        assert max(browser.run(cells)) < 40  # no word is broken, the table moves sideways
        text = browser.text("main")
        for words in (
            *("succeeded", "4 of 4 steps", "before training", "all x 2", "script.pictures"),
            *("a <script>document.title = 'broken'</script>", "learning_rate: 0.05", "torch"),
        ):
            assert words in text
    finally:
        browser.close()


@pytest.mark.parametrize(
    ("validation", "code", "said"),
    [
        ({"script": {"run": "echo no >&2; exit 3", "required": True}}, 1, "exit code 3: no"),
        ({"clip": {"model": "absent/folder"}}, ExitCode.BAD_SPEC, "cannot be loaded as CLIP"),
        ({"libraries": ["absent.yaml"]}, ExitCode.BAD_SPEC, "cannot read"),
        (
            {"sweep": {"adapters": [{"name": "a", "path": "absent.safetensors"}]}},
            ExitCode.BAD_SPEC,
            "sweep.adapters: a: absent.safetensors",
        ),
    ],
)
def test_what_cannot_be_done_ends_the_run_and_says_why(
    world, tmp_path, monkeypatch, validation, code, said
):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    root, base = world
    spec = spec_of(root, base, {"prompts": ["a"], "sampler_steps": 1, **validation})
    result = carry_out(spec, tmp_path / "run")
    assert (result.exit_code, said in result.error) == (code, True), result.error


def test_a_script_that_fails_is_told_and_the_training_goes_on(world, tmp_path):
    root, base = world
    validation = {"prompts": ["a"], "sampler_steps": 1, "script": {"run": "exit 3"}}
    hooks = {"post_checkpoint": {"run": "exit 4"}}
    result = carry_out(spec_of(root, base, validation, hooks=hooks), tmp_path / "run")
    assert result.exit_code == ExitCode.SUCCEEDED
    warnings = [each.message for each in events(result.run_dir, "log") if each.level == "warning"]
    assert "validation.script failed at step 4: exit code 3" in warnings
    assert "hooks.post_checkpoint failed at step 4: exit code 4" in warnings
    assert "exit code 3" in Path(result.outputs["report"]).read_text()
