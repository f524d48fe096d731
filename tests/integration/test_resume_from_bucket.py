"""``st-train run --resume s3://…`` against a real S3 server."""

import io

import boto3
import pytest
from accelerate.state import AcceleratorState, GradientState, PartialState
from bucket_server import connect, serve_buckets, use_buckets
from PIL import Image

from st_shared.protocol.journal import ExitCode
from st_shared.spec import TrainingSpec
from st_trainer.command import run_command
from st_trainer.errors import CheckpointError, TrainerError
from st_trainer.remote_checkpoints import RemoteCheckpoints

BUCKET = "runs"


@pytest.fixture(scope="module")
def nanio_url(tmp_path_factory):
    with serve_buckets(tmp_path_factory.mktemp("nanio")) as url:
        yield url


@pytest.fixture
def bucket(nanio_url, tmp_path, monkeypatch):
    """A store below a prefix of its own; the environment names server and keys, as for AWS."""
    use_buckets(monkeypatch, tmp_path)
    store = connect(nanio_url, BUCKET, f"{tmp_path.name}/run")
    yield store
    store._client.close()


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    for index in range(5):
        Image.new("L", (4, 4), 40 * index).save(data / f"{index}.png")
        (data / f"{index}.txt").write_text("a shade")
    config = {"image_size": 4, "width": 16, "depth": 1, "heads": 2, "caption_length": 3}
    return TrainingSpec.model_validate(
        {
            "model": {"family": "pixel_dit", "config": config},
            "datasets": [{"path": str(data)}],
            "steps": 6,
            "batch_size": 2,
            "checkpoint": {"every": 2, "keep_last": 9},
        }
    )


def run(spec, folder, server, resume="none", stop_after=99):
    asked = iter(range(1000))
    environment = {"AWS_ENDPOINT_URL": server}
    stop = lambda: next(asked) >= stop_after  # noqa: E731
    try:
        return run_command(spec, folder, {}, environment=environment, resume=resume, stop=stop)
    finally:
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()  # the next process would not have them


@pytest.fixture
def carry_out(spec, tmp_path, nanio_url):
    return lambda name, resume: run(spec, tmp_path / name, nanio_url, resume)


@pytest.fixture
def uri(bucket):
    return f"s3://{BUCKET}/{bucket._prefix}"


@pytest.fixture(scope="module")
def runs(spec, tmp_path_factory):
    """A whole run, and one that was stopped, with checkpoints of steps 2, 4 and 5."""
    folder = tmp_path_factory.mktemp("runs")
    assert run(spec, folder / "whole", "").exit_code == ExitCode.SUCCEEDED
    assert run(spec, folder / "parts", "", stop_after=5).exit_code == ExitCode.PREEMPTED
    return folder


@pytest.fixture
def interrupted(runs, bucket):
    """The weights of the whole run; the checkpoints of the other are in the bucket."""
    checkpoints = runs / "parts/checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == [
        f"step-00000{step}" for step in (2, 4, 5)
    ]
    upload(bucket, checkpoints)
    return weights(runs, "whole")


def upload(bucket, folder):
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as body:
                bucket.put(path.relative_to(folder).as_posix(), body)


def weights(tmp_path, name):
    return (tmp_path / name / "output/weights.safetensors").read_bytes()


def told(tmp_path, name):
    return (tmp_path / name / "journal.ndjson").read_text()


def test_the_newest_of_a_run_is_fetched_and_the_end_is_the_same(
    interrupted, carry_out, uri, tmp_path
):
    result = carry_out("elsewhere", uri)
    assert result.error is None
    assert "resumed from step-000005, step 5" in told(tmp_path, "elsewhere")
    assert weights(tmp_path, "elsewhere") == interrupted
    assert not (tmp_path / "elsewhere/fetched").exists()


def test_one_checkpoint_may_be_named(interrupted, carry_out, uri, tmp_path):
    carry_out("elsewhere", f"{uri}step-000002")
    assert "resumed from step-000002, step 2" in told(tmp_path, "elsewhere")
    assert weights(tmp_path, "elsewhere") == interrupted


def test_damaged_ones_are_passed_over(interrupted, carry_out, bucket, uri, tmp_path):
    size = bucket.stat("step-000005/weights.safetensors").size
    for key, content in {
        "step-000005/weights.safetensors": b"x" * size,
        "step-000004/manifest.json": b"{",
    }.items():
        bucket.put(key, io.BytesIO(content))
    carry_out("elsewhere", uri)
    assert "weights.safetensors has another checksum; trying the one" in told(tmp_path, "elsewhere")
    assert "step-000004/manifest.json is damaged" in told(tmp_path, "elsewhere")
    assert "resumed from step-000002, step 2" in told(tmp_path, "elsewhere")
    assert weights(tmp_path, "elsewhere") == interrupted


def test_when_none_is_whole_nothing_is_trained(interrupted, carry_out, bucket, uri, tmp_path):
    bucket.delete("step-000005/state.json")
    for step in (2, 4):
        bucket.put(f"step-00000{step}/state.json", io.BytesIO(b"x" * 1_000_000))
    result = carry_out("elsewhere", uri)
    assert result.exit_code == ExitCode.CRASHED
    assert result.error == f"every checkpoint in {uri} is damaged; start anew in another --run-dir"
    assert "no object 'step-000005/state.json'" in told(tmp_path, "elsewhere")
    assert "step-000004/state.json is damaged: it has another size" in told(tmp_path, "elsewhere")


def test_an_empty_place_is_told(carry_out, uri):
    assert carry_out("elsewhere", uri).error == (
        f"{uri} holds neither manifest.json nor step-…/ with one"
    )


@pytest.mark.parametrize(
    ("place", "code", "message"),
    [
        ("s3://", ExitCode.BAD_SPEC, "name a bucket"),
        (f"s3://{BUCKET}/../x", ExitCode.BAD_SPEC, "object key"),
        ("s3://absent-bucket/x", ExitCode.CRASHED, "NoSuchBucket"),
    ],
)
def test_a_place_that_cannot_be_is_told(bucket, carry_out, place, code, message):
    result = carry_out("elsewhere", place)
    assert (result.exit_code, message in result.error) == (code, True), result.error


def test_a_refusal_of_the_server_is_told(carry_out, uri, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    result = carry_out("elsewhere", uri)
    assert result.exit_code == ExitCode.CRASHED
    assert "SignatureDoesNotMatch" in result.error


def test_a_server_that_goes_away_is_no_damage(bucket, tmp_path, monkeypatch):
    """Else a run would go on from an older checkpoint because of a cable."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with serve_buckets(tmp_path) as url:
        connect(url, BUCKET, "run").put("manifest.json", io.BytesIO(b"{}"))
        remote = RemoteCheckpoints(f"s3://{BUCKET}/run", url)
        keys = remote.newest_first()
    assert keys == ["manifest.json"]
    with pytest.raises(TrainerError, match="cannot be read: Could not connect") as caught:
        remote.fetch(keys[0], tmp_path / "fetched")
    assert not isinstance(caught.value, CheckpointError)
