import pytest
import torch

from st_shared.spec import NoiseSpec
from st_trainer.objectives.noise import draw_noise, perturbation


def drawn(shape, step=0, **spec):
    return draw_noise(torch.Size(shape), NoiseSpec(**spec), step, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(64, 4, 50), (64, 4, 8, 8), (64, 4, 3, 4, 4)])
def test_plain_noise_is_standard_normal_and_seen_as_it_is(shape):
    noise = drawn(shape)
    assert noise.seen is noise.target
    assert noise.target.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.target.std().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("shape", [(4000, 2, 9), (4000, 2, 3, 3), (4000, 2, 2, 2, 2)])
def test_an_offset_is_one_number_a_channel_in_a_share_of_the_samples(shape):
    plain, offset = drawn(shape).target, drawn(shape, offset=0.5).target
    change = (offset - plain).flatten(2)
    assert change.std(dim=2).max() < 1e-6
    values = change[:, :, 0]
    changed = values.abs().sum(1) > 0
    assert changed.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert values[changed].std().item() == pytest.approx(0.5, abs=0.03)
    assert not torch.equal(values[changed][:, 0], values[changed][:, 1])


def test_a_perturbed_input_leaves_the_target_alone():
    plain, both = drawn((500, 1, 4, 4)), drawn((500, 1, 4, 4), input_perturbation=0.1)
    assert torch.equal(both.target, plain.target)
    assert (both.seen - both.target).std().item() == pytest.approx(0.1, abs=0.01)


def test_a_perturbation_falls_in_a_line_to_nothing():
    spec = NoiseSpec(input_perturbation=0.2, input_perturbation_steps=10)
    assert [perturbation(spec, step) for step in (0, 5, 10, 99)] == pytest.approx([0.2, 0.1, 0, 0])
    assert perturbation(NoiseSpec(input_perturbation=0.2), 99) == 0.2
