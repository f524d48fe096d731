import pytest
import torch

from st_shared.spec import ObjectiveSpec
from st_trainer.objectives.flow_matching import (
    drop_captions,
    flow_matching_loss,
    interpolate,
    sample_times,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_path_runs_from_the_image_to_noise():
    clean, noise = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2)
    path = interpolate(clean, noise, torch.tensor([0.0, 0.25, 1.0]))
    torch.testing.assert_close(path[0], clean[0])
    torch.testing.assert_close(path[1], 0.75 * clean[1] + 0.25 * noise[1])
    torch.testing.assert_close(path[2], noise[2])


def test_an_oracle_has_no_loss():
    clean, noise = torch.randn(4, 1, 3, 3), torch.randn(4, 1, 3, 3)
    loss = flow_matching_loss(lambda noisy, times: noise - clean, clean, noise, torch.rand(4))
    assert loss == 0


def test_loss_and_gradient_follow_the_plain_formula():
    """The model is ``a x_t + b t``; its loss and gradients are worked out number by number."""
    a, b = (torch.tensor(value, requires_grad=True) for value in (0.7, -0.4))
    clean, noise = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2)
    times = torch.tensor([0.2, 0.5, 0.9])
    loss = flow_matching_loss(
        lambda noisy, t: a * noisy + b * t.view(-1, 1, 1, 1), clean, noise, times
    )
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


def test_gradients_agree_with_finite_differences():
    weight = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    clean, noise = torch.randn(2, 2, 1, 4, 4, dtype=torch.float64)
    times = torch.tensor([0.3, 0.6], dtype=torch.float64)

    def loss(weight):
        predicted = interpolate(clean, noise, times) @ weight
        return (predicted - (noise - clean)).square().mean()

    assert torch.autograd.gradcheck(loss, weight)
    found = flow_matching_loss(lambda noisy, _: noisy @ weight, clean, noise, times)
    assert found.item() == pytest.approx(loss(weight).item(), rel=1e-5)


def test_times_follow_their_distribution():
    uniform = sample_times(20_000, "uniform", generator())
    logit_normal = sample_times(20_000, "logit_normal", generator())
    for times in (uniform, logit_normal):
        assert 0 <= times.min() < times.max() <= 1
        assert times.mean().item() == pytest.approx(0.5, abs=0.01)
    assert (uniform < 0.25).float().mean().item() == pytest.approx(0.25, abs=0.01)
    # P(sigmoid(z) < 1/4) = P(z < -ln 3) = 0.136
    assert (logit_normal < 0.25).float().mean().item() == pytest.approx(0.136, abs=0.01)
    with pytest.raises(ValueError, match="unknown distribution"):
        sample_times(1, "cauchy")


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_asked_share_of_captions_is_emptied(share):
    objective = ObjectiveSpec(caption_dropout=share)
    kept = drop_captions(["a"] * 10_000, objective, generator())
    assert set(kept) <= {"a", ""}
    assert kept.count("") / 10_000 == pytest.approx(share, abs=0.02 * (0 < share < 1))
