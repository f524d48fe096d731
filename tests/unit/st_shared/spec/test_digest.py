import pytest

from st_shared.spec import TrainingSpec, spec_sha256

DOCUMENT = {"model": {"family": "pixel_dit"}, "datasets": [{"path": "/a"}], "steps": 10}


def digest(**changes):
    return spec_sha256(TrainingSpec.model_validate(DOCUMENT | changes))


def test_folders_and_written_out_defaults_do_not_matter():
    assert digest(datasets=[{"path": "/b"}]) == digest()
    assert digest(datasets=[{"path": "/a", "damaged": "delete"}]) == digest()
    assert digest(seed=0, ema={"decay": 0.995}) == digest()
    assert digest(hooks={"post_checkpoint": {"run": "true"}}) == digest()
    assert len(digest()) == 64


def test_how_processes_share_the_work_does_not_matter():
    assert digest(distributed={"strategy": "fsdp2", "offload_parameters": "cpu"}) == digest()
    spread = {"distributed": {"strategy": "fsdp2"}, "checkpoint": {"sharded": False}}
    assert digest(**spread) == digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 11},
        {"seed": 1},
        {"datasets": [{"path": "/a", "repeats": 2}]},
        {"datasets": [{"name": "a"}]},
        {"datasets": [{"path": "/a"}, {"path": "/a"}]},
        {"optimizer": {"learning_rate": 0.1}},
        {"model": {"family": "pixel_dit", "config": {"depth": 1}}},
    ],
)
def test_what_decides_the_result_changes_the_digest(changes):
    assert digest(**changes) != digest()
