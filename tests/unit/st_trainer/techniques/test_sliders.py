"""Sliders: samples of one side are learned with the adapter turned that way."""

import pytest
import torch
from PIL import Image

from st_shared.spec import TrainingSpec
from st_trainer.adapters.adapter import trained
from st_trainer.batch import draw_batch
from st_trainer.data.images import Images
from st_trainer.data.medium import Bucket
from st_trainer.data.reading import read_datasets
from st_trainer.loop import batch_loss, step
from st_trainer.session import Session
from st_trainer.weights import open_denoiser

STRENGTHS = (1.0, -2.0)


@pytest.fixture
def session_of(base_folder, tmp_path):
    folders = []
    for side, _ in enumerate(STRENGTHS):
        folders.append(tmp_path / str(side))
        folders[-1].mkdir()
        for index in range(3):
            shade = (80 * index, 200 * side, 90)
            Image.new("RGB", (16, 16), shade).save(folders[-1] / f"{index}.png")
            (folders[-1] / f"{index}.txt").write_text("a colour")

    def make(kind="lora", **changes):
        model = {"family": "sd1", "base": str(base_folder("sd1")), "config": {"resolution": 16}}
        datasets = [
            {"path": str(folder), "slider_strength": strength}
            for folder, strength in zip(folders, STRENGTHS, strict=True)
        ]
        document = {"model": model, "datasets": datasets, "adapter": {"kind": kind, "rank": 2}}
        spec = TrainingSpec.model_validate(document | {"batch_size": 2} | changes)
        samples = read_datasets(spec.datasets, folders, Images(3, 16, 16)).samples
        return Session(spec, samples, open_denoiser(spec, list))

    return make


def woken(session):
    torch.manual_seed(9)
    with torch.no_grad():
        for weight in trained(session.module).values():
            weight.normal_(0, 0.1)
    return session


def test_a_batch_never_mixes_strengths(session_of):
    session = session_of()
    for _ in range(20):
        assert len({index // 3 for index in session.sampler.take(2)}) == 1
    assert session.samples.bucket_counts == {Bucket((3, 16, 16)): 6}
    assert session.samples.bucket_sizes.tolist() == [3, 3]
    assert [session.samples.strength([index]) for index in (0, 3)] == list(STRENGTHS)


@pytest.mark.parametrize("kind", ["lora", "lycoris"])
def test_the_adapter_counts_as_much_as_the_samples_ask_for_and_then_as_it_is(session_of, kind):
    session = woken(session_of(kind))
    module, adapter = session.module, session.adapter
    batch = draw_batch(session, [0, 1])

    def answer():
        with torch.no_grad():
            return session.denoiser.predict(batch.noisy, batch.times, batch.condition)

    whole = answer()
    with adapter.off(module):
        frozen = answer()
    batch_loss(session, [3, 4])
    turned = answer()
    assert not torch.allclose(turned, whole, atol=1e-4)
    assert not torch.allclose(turned, frozen, atol=1e-4)
    step(session, [3, 4], 0.0)
    torch.testing.assert_close(answer(), whole)


def test_the_opposite_side_is_learned_by_matrices_that_are_turned(session_of):
    """The gradient at strength s is s times that of a plain LoRA whose matrices were scaled."""
    session = woken(session_of())
    state = session.generator.get_state()
    batch_loss(session, [3, 4]).backward()
    found = {name: each.grad.clone() for name, each in trained(session.module).items()}
    other = woken(session_of())
    other.techniques = []
    other.generator.set_state(state)
    with torch.no_grad():
        for name, weight in trained(other.module).items():
            if "lora_B" in name:
                weight.mul_(STRENGTHS[1])
    batch_loss(other, [3, 4]).backward()
    for name, weight in trained(other.module).items():
        scale = STRENGTHS[1] if "lora_B" in name else 1.0
        torch.testing.assert_close(found[name], weight.grad * scale, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ({"kind": "full"}, "is for adapter.kind lora or lycoris, not full"),
        ({"kind": "lora", "init": "pissa"}, "makes no slider"),
    ],
)
def test_what_cannot_be_a_slider_is_refused(session_of, adapter, said):
    with pytest.raises(ValueError, match=said):
        session_of(adapter=adapter)
