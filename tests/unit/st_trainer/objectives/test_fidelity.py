"""Gradients of one step against formulas written out from the papers, and what oracles prove."""

import itertools
import math

import pytest
import torch
from diffusers import DDPMScheduler
from torch import nn

from st_shared.spec import ObjectiveSpec
from st_trainer.objectives.autoregressive import IGNORED, Autoregressive
from st_trainer.objectives.ddpm import Ddpm, NoiseSchedule
from st_trainer.objectives.edm import Edm
from st_trainer.objectives.flow_matching import FlowMatching

SHAPES = {3: (3, 2, 7), 4: (3, 2, 4, 5), 5: (3, 2, 2, 3, 3)}
SHARES = torch.tensor([0.15, 0.5, 0.85])
LOSSES = [
    {"name": "l2"},
    {"name": "huber"},
    {"name": "smooth_l1"},
    {"name": "huber", "huber_schedule": "exponential"},
    {"name": "smooth_l1", "huber_schedule": "snr"},
    {"name": "l2", "snr_gamma": 5.0},
    {"name": "huber", "snr_gamma": 1.5},
    {"name": "l2", "snr_gamma": 5.0, "soft_min_snr": True},
]
DIFFUSERS = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


class Net(nn.Module):
    """Mixes channels, and is told its time."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.mix, self.time = nn.Linear(2, 2), nn.Linear(1, 2)

    def forward(self, noisy, shares):
        told = self.time(shares.view(-1, 1)).view(len(noisy), 2, *[1] * (noisy.dim() - 2))
        return torch.tanh(self.mix(noisy.transpose(1, -1)).transpose(1, -1) + told)


def make(kind, loss):
    spec = ObjectiveSpec(loss=loss)
    if kind == "flow":
        return FlowMatching(spec)
    if kind == "edm":
        return Edm(spec)
    return Ddpm(spec, NoiseSchedule(DIFFUSERS.alphas_cumprod, kind))


def reference(kind, net, clean, noise, times, loss):
    """Errors, sample by sample, straight from the papers."""
    total = []
    for x0, e, time in zip(clean, noise, times, strict=True):
        if kind == "flow":
            t = time.item()
            seen, target, share = (1 - t) * x0 + t * e, e - x0, t
            sigma, sharp = t / (1 - t), 1 / t**2
        elif kind == "edm":
            sigma, data = time.item(), 0.5
            root = math.sqrt(sigma**2 + data**2)
            noisy = x0 + sigma * e
            target = (x0 - data**2 / root**2 * noisy) / (sigma * data / root)
            seen, sharp = noisy / root, (root / (sigma * data)) ** 2
            low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
            share = (sigma ** (1 / 7) - low) / (high - low)
        else:
            one = time.reshape(1)
            seen = DIFFUSERS.add_noise(x0[None], e[None], one)[0]
            velocity = DIFFUSERS.get_velocity(x0[None], e[None], one)[0]
            target = e if kind == "epsilon" else velocity
            kept = DIFFUSERS.alphas_cumprod[time].item()
            sigma, share = math.sqrt((1 - kept) / kept), time.item() / 1000
            snr = kept / (1 - kept)
            sharp = snr if kind == "epsilon" else snr + 1
        d = net(seen[None], torch.tensor([share]))[0] - target
        c = loss.get("huber_c", 0.1)
        if loss.get("huber_schedule") == "exponential":
            c = math.exp(math.log(c) * share)
        if loss.get("huber_schedule") == "snr":
            c = (1 - c) / (1 + sigma) ** 2 + c
        error = {
            "l2": d**2,
            "huber": 2 * c * (torch.sqrt(d**2 + c**2) - c),
            "smooth_l1": 2 * (torch.sqrt(d**2 + c**2) - c),
        }[loss["name"]]
        weight, gamma = 1.0, loss.get("snr_gamma")
        if gamma:
            snr = 1 / sigma**2
            best = snr * gamma / (snr + gamma) if loss.get("soft_min_snr") else min(snr, gamma)
            weight = best / sharp
        total.append(weight * error.mean())
    return sum(total) / len(total)


@pytest.mark.parametrize("dimensions", [3, 4, 5])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: "-".join(map(str, loss.values())))
@pytest.mark.parametrize("kind", ["flow", "epsilon", "v", "edm"])
def test_gradients_are_those_of_the_papers(kind, loss, dimensions):
    torch.manual_seed(1)
    clean, noise = torch.randn(2, *SHAPES[dimensions])
    objective, net = make(kind, loss), Net()
    times = objective.from_share(SHARES)
    noisy = objective.scaled(objective.noisy(clean, noise, times), times)
    found = objective.loss(
        net(noisy, objective.share(times)), objective.target(clean, noise, times), times
    )
    found.backward()
    ours = [weight.grad.clone() for weight in net.parameters()]
    net.zero_grad()
    expected = reference(kind, net, clean, noise, times, loss)
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for mine, weight in zip(ours, net.parameters(), strict=True):
        difference = (mine - weight.grad).abs().max() / weight.grad.abs().max()
        assert difference <= 1e-5


@pytest.mark.parametrize("dimensions", [3, 4, 5])
@pytest.mark.parametrize("kind", ["flow", "epsilon", "v", "edm"])
def test_an_oracle_has_no_loss_and_its_sampler_arrives(kind, dimensions):
    torch.manual_seed(2)
    clean, noise = torch.randn(2, *SHAPES[dimensions])
    objective = make(kind, {"name": "l2"})
    times = objective.from_share(SHARES)
    noisy, target = (make_(clean, noise, times) for make_ in (objective.noisy, objective.target))
    assert objective.loss(target, target, times) == 0
    torch.testing.assert_close(objective.clean(target, noisy, times), clean, atol=1e-4, rtol=0)
    path, latents = objective.path(7, 64), objective.start(noise, 64)
    for time, following in itertools.pairwise(path):
        now = time.to(torch.long if kind in ("epsilon", "v") else torch.float32).expand(3)
        implied = _noise_in(objective, clean, latents, now)
        latents = objective.step(latents, objective.target(clean, implied, now), time, following)
    torch.testing.assert_close(latents, clean, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ["flow", "epsilon", "v", "edm"])
def test_samplers_work_where_the_latents_are(kind):
    objective = make(kind, {"name": "l2"})
    path = objective.path(3, 64)
    latents = torch.empty(2, 4, 8, 8, device="meta")
    for time, following in itertools.pairwise(path):
        latents = objective.step(latents, torch.empty_like(latents), time, following)
        assert latents.is_meta


def _noise_in(objective, clean, latents, times):
    """The noise that makes ``latents`` of ``clean``."""
    nothing, one = (
        objective.noisy(clean, fill(clean), times) for fill in (torch.zeros_like, torch.ones_like)
    )
    return (latents - nothing) / (one - nothing)


def test_weights_of_places_and_samples_multiply():
    flow = FlowMatching(ObjectiveSpec(loss={"snr_gamma": 5.0}))
    predicted, target = torch.randn(2, 3, 1, 2, 2)
    times, mask = torch.tensor([0.3, 0.6, 0.9]), torch.rand(3, 1, 2, 2)
    found = flow.loss(predicted, target, times, mask)
    own = flow.weight(times).view(-1, 1, 1, 1)
    torch.testing.assert_close(found, ((predicted - target) ** 2 * mask * own).mean())
    each = torch.tensor([1.0, 0.0, 2.0])
    plain = FlowMatching(ObjectiveSpec()).loss(predicted, target, times, each)
    torch.testing.assert_close(plain, ((predicted - target) ** 2 * each.view(-1, 1, 1, 1)).mean())


@pytest.mark.parametrize("books", [None, 3])
def test_autoregression_is_cross_entropy_over_the_tokens_that_count(books):
    torch.manual_seed(3)
    shape = (2, 5) if books is None else (2, 5, books)
    tokens = torch.randint(7, shape)
    tokens[0, 3:] = IGNORED
    logits = torch.randn(*shape, 7, requires_grad=True)
    objective = Autoregressive(ObjectiveSpec())
    times = objective.draw(2, 5)
    found = objective.loss(logits, objective.target(tokens, tokens, times), times)
    counted = [
        -torch.log_softmax(logits[place], -1)[tokens[place]]
        for place in map(tuple, (tokens != IGNORED).nonzero().tolist())
    ]
    torch.testing.assert_close(found, torch.stack(counted).mean())
    [ours] = torch.autograd.grad(found, logits)
    [theirs] = torch.autograd.grad(torch.stack(counted).mean(), logits)
    assert (ours - theirs).abs().max() / theirs.abs().max() <= 1e-5
    weights = torch.tensor([0.0, 1.0])
    second = objective.loss(logits[1:], tokens[1:], times[1:])
    torch.testing.assert_close(objective.loss(logits, tokens, times, weights), second)


def test_an_autoregressive_oracle_spells_its_tokens():
    tokens = torch.tensor([[3, 1, 4, 1, 5], [2, 6, 5, 3, 5]])
    logits = 50.0 * nn.functional.one_hot(tokens, 7)
    objective = Autoregressive(ObjectiveSpec())
    assert objective.loss(logits, tokens, objective.draw(2, 5)) == 0
    known, path = objective.start(torch.randn(2, 5), 5), objective.path(1, 5)
    for time, following in itertools.pairwise(path):
        assert torch.equal(known[:, :time], tokens[:, :time])
        assert not known[:, time:].any()
        known = objective.step(known, logits, time, following)
    assert torch.equal(known, tokens)


def test_edm_times_are_log_normal_and_stay_in_their_range():
    generator = torch.Generator().manual_seed(0)
    sigmas = Edm(ObjectiveSpec()).draw(20_000, 64, generator)
    assert sigmas.log().mean().item() == pytest.approx(-1.2, abs=0.03)
    assert sigmas.log().std().item() == pytest.approx(1.2, abs=0.03)
    stage = Edm(ObjectiveSpec(timesteps={"highest": 0.5})).draw(1000, 64, generator)
    edm = Edm(ObjectiveSpec())
    assert edm.share(stage).max() <= 0.5 + 1e-5


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_ddpm_visits_the_steps_that_diffusers_does(spacing):
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(timestep_spacing=spacing, steps_offset=1 if spacing == "leading" else 0)
    theirs.set_timesteps(7)
    ours = Ddpm(ObjectiveSpec(), NoiseSchedule.of(theirs)).path(7, 64)
    assert ours.tolist() == [*theirs.timesteps.tolist(), -1]


@pytest.mark.parametrize("steps", [1, 4, 7, 20])
def test_ddpm_visits_the_steps_that_a_solver_does(steps):
    from diffusers import DPMSolverMultistepScheduler

    theirs = DPMSolverMultistepScheduler()
    theirs.set_timesteps(steps)
    schedule = NoiseSchedule(theirs.alphas_cumprod, spacing="solver")
    assert schedule.visited(steps) == theirs.timesteps.tolist()
