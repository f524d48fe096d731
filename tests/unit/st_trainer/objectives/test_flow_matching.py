import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from st_shared.spec import ObjectiveSpec
from st_trainer.objectives.flow_matching import (
    FlowMatching,
    interpolate,
    scheduler_path,
    shifted_path,
)


@pytest.fixture
def flow():
    return FlowMatching(ObjectiveSpec())


def test_the_path_runs_from_the_image_to_noise():
    clean, noise = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2)
    path = interpolate(clean, noise, torch.tensor([0.0, 0.25, 1.0]))
    torch.testing.assert_close(path[0], clean[0])
    torch.testing.assert_close(path[1], 0.75 * clean[1] + 0.25 * noise[1])
    torch.testing.assert_close(path[2], noise[2])


def test_loss_and_gradient_follow_the_plain_formula(flow):
    """The model is ``a x_t + b t``; its loss and gradients are worked out number by number."""
    a, b = (torch.tensor(value, requires_grad=True) for value in (0.7, -0.4))
    clean, noise = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2)
    times = torch.tensor([0.2, 0.5, 0.9])
    answer = a * flow.noisy(clean, noise, times) + b * times.view(-1, 1, 1, 1)
    loss = flow.loss(answer, flow.target(clean, noise, times), times)
    loss.backward()
    errors, by_a, by_b = [], [], []
    for x, e, t in zip(clean, noise, times.tolist(), strict=True):
        for x0, n in zip(x.flatten().tolist(), e.flatten().tolist(), strict=True):
            x_t = (1 - t) * x0 + t * n
            error = 0.7 * x_t - 0.4 * t - (n - x0)
            errors.append(error**2)
            by_a.append(2 * error * x_t)
            by_b.append(2 * error * t)
    for found, terms in ((loss, errors), (a.grad, by_a), (b.grad, by_b)):
        assert found.item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_the_sampler_goes_in_equal_steps_unless_its_scheduler_shifts(flow):
    assert flow.path(4, 64).tolist() == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    shifted = FlowMatching(ObjectiveSpec(), shifted_path({"shift": 3.0})).path(2, 64)
    assert shifted.tolist() == pytest.approx([1, 0.75, 0])


@pytest.mark.parametrize("tokens", [256, 1000, 4096])
def test_a_dynamic_path_is_that_of_the_scheduler_when_it_is_told_the_shift(tokens):
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    mu = 0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256)
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], mu=mu)
    found = shifted_path(scheduler.config)(4, tokens)
    torch.testing.assert_close(found.float(), scheduler.sigmas)


@pytest.mark.parametrize("tokens", [64, 4096])
def test_a_scheduler_with_a_dynamic_shift_is_told_it(tokens):
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    mu = 0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256)
    found = scheduler_path(scheduler)(5, tokens)
    scheduler.set_timesteps(5, mu=mu)
    torch.testing.assert_close(found.float(), scheduler.sigmas)


def test_a_scheduler_that_is_told_only_the_steps_gives_its_own_path():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    found = scheduler_path(scheduler)(5, 64)
    assert (len(found), found[0].item(), found[-1].item()) == (6, 1.0, 0.0)
    scheduler.set_timesteps(5)
    assert found.tolist() == scheduler.sigmas.tolist()
