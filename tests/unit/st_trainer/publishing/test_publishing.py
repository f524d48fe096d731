"""Publishing to servers that stand here: a hub's calls, and a real server of buckets."""

import json
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import yaml
from bucket_server import connect, serve_buckets, use_buckets
from hub_server import TOKEN, serve_hub

from st_shared.protocol.journal import ExitCode
from st_shared.redaction import Redactor
from st_shared.spec.publishing import PublishSpec
from st_shared.spec.training import TrainingSpec
from st_trainer.command import run_command
from st_trainer.publishing import publisher
from st_trainer.publishing.card import model_card
from st_trainer.publishing.places import PublishError, open_place
from st_trainer.run_folder import RunFolder

# Of the hub's own client, which meets whichever HTTP library is newest.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("ST_SECRET_NAMES", "HF_TOKEN")
    with serve_hub() as served:
        yield served


def to_hub(hub, **more):
    return {"kind": "huggingface", "repository": "ann/squares", "endpoint_url": hub.url, **more}


def carry_out(spec, root):
    return run_command(spec, root, {}, environment=os.environ, resume="none", stop=lambda: False)


def logged(root):
    events = map(json.loads, (root / "journal.ndjson").read_text().splitlines())
    return [event["message"] for event in events if event["kind"] == "log"]


def told_by_hooks(root):
    """The steps of what ``post_upload`` has said."""
    events = map(json.loads, (root / "journal.ndjson").read_text().splitlines())
    found = [each for each in events if each["kind"] == "metric"]
    return [each["step"] for each in found if "post_upload.told" in each["values"]]


def test_a_run_publishes_its_result_with_a_card_and_its_checkpoints(hub, tiny_spec, tmp_path):
    hook = 'echo "$ST_STEP | $1 | $2" >> uploads; echo \'{"told": 1}\''
    spec = tiny_spec(
        publish=[to_hub(hub, checkpoints=True, license="mit", trigger="shade")],
        hooks={"post_upload": {"run": hook}},
    )
    result = carry_out(spec, tmp_path / "run")
    assert result.exit_code == ExitCode.SUCCEEDED
    files = hub.repositories["ann/squares"]
    assert hub.private == {"ann/squares": True}
    weights = (tmp_path / "run/output/weights.safetensors").read_bytes()
    assert files["weights.safetensors"] == weights
    assert {"README.md", "samples/step-000008.png", "sample_grid.png"} <= files.keys()
    for step in ("step-000004", "step-000008"):
        manifest = json.loads(files[f"checkpoints/{step}/manifest.json"])
        assert all(f"checkpoints/{step}/{each['path']}" in files for each in manifest["files"])
    _, data, text = files["README.md"].decode().split("---\n", 2)
    front = yaml.safe_load(data)
    assert front["license"] == "mit"
    assert front["instance_prompt"] == "shade"
    assert front["widget"][0]["output"]["url"] == "samples/step-000008.png"
    assert "![samples](samples/step-000008.png)" in text
    report = Path(result.outputs["report"]).read_text()
    for told in (text, (tmp_path / "run/journal.ndjson").read_text(), report):
        assert TOKEN not in told
    assert str(tmp_path) not in text
    address = f"{hub.url}/ann/squares/commit/{3:040d}"
    assert f"publish.huggingface: result is at {address}" in logged(tmp_path / "run")
    uploads = (tmp_path / "run/uploads").read_text().splitlines()
    assert [each.rpartition(" | ")[0] for each in uploads] == [
        "4 | checkpoint of step 4",
        "8 | checkpoint of step 8",
        "8 | result",
    ]
    assert uploads[-1].endswith(f" | {address}")
    assert told_by_hooks(tmp_path / "run") == [4, 8, 8]
    assert not list((tmp_path / "run/held").iterdir())


def test_what_fails_is_tried_again_and_never_fails_the_run(hub, tiny_spec, tmp_path, monkeypatch):
    monkeypatch.setattr(publisher, "FIRST_PAUSE", 0.001)
    monkeypatch.delenv("ST_SECRET_NAMES")  # as where a run has no worker
    hub.failures = [429, 409]
    spec = tiny_spec(publish=[to_hub(hub, samples=False)])
    assert carry_out(spec, tmp_path / "later").exit_code == ExitCode.SUCCEEDED
    assert len(hub.commits) == 1
    hub.failures = [403]
    assert carry_out(spec, tmp_path / "never").exit_code == ExitCode.SUCCEEDED
    said = [each for each in logged(tmp_path / "never") if "result was not published" in each]
    assert len(said) == 1
    assert "not now, Bearer [secret HF_TOKEN]" in said[0]
    assert "403" in said[0]
    assert len(hub.commits) == 1


def test_a_wrong_token_is_final_and_not_told(hub, tmp_path):
    (tmp_path / "file").write_text("x")
    place = open_place(PublishSpec(**to_hub(hub)), {"HF_TOKEN": "hf_wrong-horse"})
    with pytest.raises(PublishError, match="401") as refused:
        place.send(tmp_path, "", "told")
    assert refused.value.is_final
    assert "wrong-horse" not in str(refused.value)


def test_a_missing_token_is_told_before_the_first_step(hub, tiny_spec, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    result = carry_out(tiny_spec(publish=[to_hub(hub)]), tmp_path / "run")
    assert result.exit_code == ExitCode.BAD_SPEC
    assert "needs a token in HF_TOKEN: store it with `st secrets set`" in result.error


def test_a_run_publishes_to_a_bucket_and_goes_on_from_there(tiny_spec, tmp_path, monkeypatch):
    monkeypatch.setattr(publisher, "TRIES", 2)
    monkeypatch.setattr(publisher, "FIRST_PAUSE", 0.001)
    with serve_buckets(tmp_path) as url:
        store = connect(url, "models", "squares")
        use_buckets(monkeypatch, tmp_path)
        place = {"kind": "s3", "endpoint_url": url, "checkpoints": True}
        absent = {**place, "uri": "s3://absent-bucket/x"}
        spec = tiny_spec(publish=[{**place, "uri": "s3://models/squares"}, absent])
        assert carry_out(spec, tmp_path / "run").exit_code == ExitCode.SUCCEEDED
        names = {each.key for each in store.list("")}
        weights = b"".join(store.open("weights.safetensors"))
    assert weights == (tmp_path / "run/output/weights.safetensors").read_bytes()
    assert {"README.md", "samples/step-000008.png"} <= names
    assert "checkpoints/step-000004/manifest.json" in names
    told = logged(tmp_path / "run")
    assert "publish.s3: result is at s3://models/squares" in told
    assert any("result was not published: s3://absent-bucket/x" in each for each in told)


class SlowPlace:
    """Notes who sends to it; the first of all it keeps waiting until it is told to go on."""

    def __init__(self):
        self.senders, self.sent, self.may_go_on = [], [], threading.Event()

    def send(self, folder, below, _told):
        assert (folder / "a").read_text() == "kept"
        self.senders.append(threading.current_thread())
        if self.senders[-1] is not threading.main_thread():
            assert self.may_go_on.wait(60)
        self.sent.append(below)
        return f"there/{below}"


def test_the_training_goes_on_while_a_checkpoint_is_sent(
    tiny_spec, run_folder, trainer_journal, monkeypatch
):
    place, told = SlowPlace(), []
    monkeypatch.setattr(publisher, "open_place", lambda *_: place)
    spec = PublishSpec(kind="s3", uri="s3://models/x", checkpoints=True)
    session = SimpleNamespace(spec=tiny_spec(), step=2)
    found = publisher.Publisher(
        spec, session, run_folder, trainer_journal, {}, uploaded=lambda *each: told.append(each)
    )
    trainer_journal.add_listener(found.hear)
    for step in (1, 2):
        folder = run_folder.checkpoints / f"step-{step:06d}"
        folder.mkdir()
        (folder / "a").write_text("kept")
        (folder / "manifest.json").write_text("{}")
        trainer_journal.checkpoint(step, run_folder.relative(folder / "manifest.json"))
        found.poll()
        shutil.rmtree(folder)
    assert (place.sent, told) == ([], [])
    place.may_go_on.set()
    found.close(60)
    assert threading.main_thread() not in place.senders
    names = ["checkpoints/step-000001", "checkpoints/step-000002"]
    assert place.sent == names
    assert told == [
        (step, f"checkpoint of step {step}", f"there/{name}") for step, name in enumerate(names, 1)
    ]


def test_a_card_escapes_what_people_wrote_and_hides_places(tmp_path):
    spec = TrainingSpec.model_validate(
        {
            "model": {"family": "sd1", "base": "/home/ann/private/base-model"},
            "datasets": [
                {"path": "/home/ann/private/<b>pictures"},
                {"path": "lab/houses", "format": "huggingface"},
            ],
            "validation": {"prompts": ["a `tick` and --- a <script>", "b\n---\nc: d"]},
        }
    )
    prompts = spec.validation.prompts
    publish = PublishSpec(kind="s3", uri="s3://models/x", trigger="sks: [a]\n---")
    card = model_card(publish, spec, 1000, ["samples/a.png"], prompts)
    data, text = card.removeprefix("---\n").split("\n---\n\n", 1)
    front = yaml.safe_load(data)
    assert front["instance_prompt"] == "sks: [a]\n---"
    assert [each["text"] for each in front["widget"]] == [each.prompt for each in prompts]
    assert front["datasets"] == ["lab/houses"]
    assert "base_model" not in front
    assert "/home/ann" not in card
    assert "- `` a `tick` and --- a <script> ``" in text
    assert r"\<b\>pictures, lab/houses" in text


def test_a_card_names_secrets_before_it_quotes_what_they_are_made_of():
    secret = "it's_a: `word` of <many> letters " + "and more " * 12 + "to be folded"
    spec = TrainingSpec.model_validate(
        {
            "model": {"family": "sd1", "base": "lab/base"},
            "datasets": [{"path": f"/x/{secret}"}],
            "validation": {"prompts": [f"a {secret}"]},
        }
    )
    publish = PublishSpec(kind="s3", uri="s3://models/x", trigger=f"sks {secret}")
    known = Redactor({"WORD": secret})
    card = model_card(publish, spec, 9, ["samples/a.png"], spec.validation.prompts, known)
    for piece in ("it's", "it''s", "many", "and more", "folded"):
        assert piece not in card
    data, text = card.removeprefix("---\n").split("\n---\n\n", 1)
    front = yaml.safe_load(data)
    assert front["instance_prompt"] == "sks [secret WORD]"
    assert front["widget"][0]["text"] == "a [secret WORD]"
    assert r"Datasets: \[secret WORD\]." in text
    assert "- `a [secret WORD]`" in text


def test_what_is_held_for_a_place_stays_until_it_was_sent(run_folder):
    source = run_folder.checkpoints / "step-000001"
    source.mkdir()
    (source / "a").write_text("kept")
    from st_trainer.held import hold, release

    held = hold(source, RunFolder(run_folder.root).held("x"))
    shutil.rmtree(source)
    assert (held / "a").read_text() == "kept"
    release(held)
    assert not held.exists()
