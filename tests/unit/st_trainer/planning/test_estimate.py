"""What is foretold of a run, against what the run then holds."""

import gc
import shutil
from pathlib import Path

import pytest
import torch
from fixtures.media import dataset_of
from fixtures.tiny import TINY
from PIL import Image
from torch.profiler import ProfilerActivity, profile

from st_shared.spec import TrainingSpec
from st_trainer.adapters.adapter import trained
from st_trainer.data.images import Images
from st_trainer.data.reading import read_datasets
from st_trainer.errors import BadSpecError
from st_trainer.planning.estimate import estimate
from st_trainer.session import Session
from st_trainer.weights import open_denoiser

SIDE = 64
"""Pixels; activations then outweigh what a step holds besides."""


@pytest.fixture
def spec_of(base_folder):
    def make(family="sd1", **changes):
        config = TINY[family].config
        if "resolution" in config:
            config = config | {"resolution": SIDE}
        document = {
            "model": {"family": family, "base": str(base_folder(family)), "config": config},
            "datasets": [dataset_of(family, Path("x"))],
            "batch_size": 4,
            "cache": {"latents": "off", "text": "off"},
        }
        return TrainingSpec.model_validate(document | changes)

    return make


def peak_of(session):
    """Bytes that torch's allocator adds at most while gradients are made."""
    denoiser = session.denoiser
    generator = torch.Generator().manual_seed(0)
    count = session.spec.batch_size
    noisy = torch.randn(count, *denoiser.latent_shape, generator=generator)
    times = denoiser.objective.from_share(torch.rand(count, generator=generator))
    with torch.no_grad():
        condition = denoiser.encode(["a"] * count)
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        answer = denoiser.predict(noisy, times, condition)
        answer.float().square().mean().backward()
    sizes = [
        event.nbytes() for event in watched.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]  # fmt: skip
    now = peak = 0
    for each in sizes:
        now += each
        peak = max(peak, now)
    return peak


@pytest.fixture
def session_of(spec_of, tmp_path):
    Image.new("RGB", (SIDE, SIDE), (200, 30, 60)).save(tmp_path / "0.png")
    (tmp_path / "0.txt").write_text("a colour")

    def make(family="sd1", **changes):
        spec = spec_of(family, datasets=[{"path": str(tmp_path)}], **changes)
        samples = read_datasets(spec.datasets, [tmp_path], Images(3, SIDE, SIDE)).samples
        return Session(spec, samples, open_denoiser(spec, list))

    return make


@pytest.mark.parametrize("checkpointing", [pytest.param(None, marks=pytest.mark.families), 1])
@pytest.mark.parametrize(
    "family", ["flux", *(pytest.param(n, marks=pytest.mark.families) for n in ("sd1", "sd3"))]
)
def test_activations_are_foretold(spec_of, session_of, family, checkpointing):
    changes = {"memory": {"gradient_checkpointing": checkpointing}}
    found = estimate(spec_of(family, **changes))
    measured = peak_of(session_of(family, **changes))
    assert found.activations + found.gradients == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("changes", [{}, {"adapter": {"kind": "full"}}], ids=["lora", "full"])
def test_what_always_lies_there_is_foretold(spec_of, session_of, changes):
    session, found = session_of(**changes), estimate(spec_of(**changes))
    learned = trained(session.module)
    size = sum(each.nbytes for each in learned.values())
    own = [*session.module.parameters(), *session.module.buffers()]
    assert found.base == sum(each.nbytes for each in own) - size
    assert found.adapter == found.gradients == found.average == size
    assert found.optimizer == 2 * size
    assets = session.denoiser.assets
    for part, foretold in (("text_encoder", found.text_encoders), ("vae", found.vae)):
        tensors = [*assets[part].parameters(), *assets[part].buffers()]
        assert foretold == sum(each.nbytes for each in tensors)


FORMATS = ["int8", "nf4", *(pytest.param(n, marks=pytest.mark.families) for n in ("fp8", "int4"))]


@pytest.mark.parametrize("format_", FORMATS)
def test_the_base_in_each_format_is_foretold(spec_of, session_of, format_):
    """Measured: the bytes of every storage that the frozen part of the model leads to."""
    changes = {"memory": {"quantization": {"format": format_}}}
    session, found = session_of("flux", **changes), estimate(spec_of("flux", **changes))
    learned = {id(each) for each in trained(session.module).values()}
    frozen = [each for each in session.module.parameters() if id(each) not in learned]
    frozen += list(session.module.buffers())
    assert found.base == pytest.approx(sum(map(storage_bytes, frozen)), rel=0.1)


def storage_bytes(tensor):
    if hasattr(tensor, "__tensor_flatten__"):
        return sum(storage_bytes(getattr(tensor, n)) for n in tensor.__tensor_flatten__()[0])
    size = tensor.untyped_storage().nbytes()
    state = getattr(tensor, "quant_state", None)
    if state is not None:
        size += state.absmax.nbytes + state.state2.absmax.nbytes
    return size


@pytest.mark.families
@pytest.mark.parametrize("family", TINY)
def test_every_family_can_be_planned(spec_of, family):
    found = estimate(spec_of(family, batch_size=1))
    assert min(found.base, found.adapter, found.operations) > 0


@pytest.mark.families
def test_references_are_counted(spec_of):
    """By their tokens: without any, ``kontext`` takes what ``flux`` takes."""

    def planned(family, **options):
        spec = spec_of(family)
        model = spec.model.model_copy(update={"config": spec.model.config | options})
        return estimate(spec.model_copy(update={"model": model}))

    small, large = (planned("kontext", reference_resolution=side) for side in (16, SIDE))
    flux = planned("flux")
    assert flux.activations < small.activations < large.activations
    assert flux.operations < small.operations < large.operations
    assert 1.5 < large.operations / flux.operations < 3


@pytest.mark.families
def test_what_sees_pictures_is_counted_while_it_stays(spec_of, load_tiny):
    encoder = load_tiny("wan_i2v").assets["image_encoder"]
    size = sum(each.nbytes for each in (*encoder.parameters(), *encoder.buffers()))
    caches = {"latents": "before", "text": "before"}
    gone = estimate(spec_of("wan_i2v", cache=caches))
    here = estimate(spec_of("wan_i2v", cache=caches | {"images": "off"}))
    assert (gone.image_encoder, gone.vae, gone.text_encoders) == (0, 0, 0)
    assert (here.image_encoder, here.vae, here.text_encoders) == (size, 0, 0)
    assert here.total >= gone.total + size
    assert here.operations > gone.operations


def test_nothing_is_read_but_configurations(spec_of, base_folder, tmp_path):
    bare = tmp_path / "bare"
    weights = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(base_folder("sd1"), bare, ignore=weights)
    assert not list(bare.rglob("*.safetensors"))
    spec = spec_of()
    other = spec.model_copy(update={"model": spec.model.model_copy(update={"base": str(bare)})})
    assert estimate(other) == estimate(spec)
    shutil.rmtree(bare / "unet")
    with pytest.raises(BadSpecError, match=r"training\.model\.base: .* has no folder unet"):
        estimate(other)


def test_encoders_that_leave_memory_are_not_counted(spec_of):
    here, gone = estimate(spec_of()), estimate(spec_of(cache={}))
    assert (gone.text_encoders, gone.vae) == (0, 0)
    assert min(here.text_encoders, here.vae) > 0
    assert gone.operations < here.operations


def test_shared_tokens_halve_activations_and_operations(spec_of):
    shares = {"context_parallel": 2, "processes": 2}
    whole, shared = (
        estimate(spec_of("flux", cache={}, distributed=each)) for each in ({}, shares)
    )  # without encoders, which see all
    passes = [each.activations + each.gradients for each in (shared, whole)]
    assert 0.45 < passes[0] / passes[1] < 0.65
    assert 0.45 < shared.operations / whole.operations < 0.65
    assert (shared.base, shared.adapter) == (whole.base, whole.adapter)
    assert whole.awaited == 0 < shared.awaited


def test_tokens_of_a_model_without_a_plan_are_not_shared(spec_of):
    spec = spec_of("sd1", distributed={"context_parallel": 2, "processes": 2})
    with pytest.raises(BadSpecError, match="context_parallel: Diffusers has no plan"):
        estimate(spec)


def test_the_first_of_several_processes_holds_its_part(spec_of):
    """Of a LoRA under FSDP2: a third of all, and states in as many rows as there are."""
    alone = estimate(spec_of())
    found = estimate(spec_of(distributed={"strategy": "fsdp2", "processes": 3}))
    assert alone.base / 3 <= found.base < alone.base / 2.5
    assert found.optimizer == 2 * found.average
    ranks = found.by_rank
    assert ranks[0].total == found.total
    assert (ranks[0].first, ranks[-1].last) == (0, 2)
    assert ranks[-1].total < found.total
    assert found.exchanged > 0
