import pytest
import torch

from st_shared.spec import ObjectiveSpec, TimestepSpec
from st_trainer.objectives.flow_matching import FlowMatching
from st_trainer.objectives.timesteps import (
    QUANTILES,
    catmull_rom,
    draw_times,
    dynamic_shift,
    shifted,
)

COUNT = 20_000


def drawn(distribution, shift=1.0, **spec):
    generator = torch.Generator().manual_seed(0)
    return draw_times(COUNT, distribution, TimestepSpec(**spec), generator, shift)


def share_below(times, limit):
    return (times < limit).float().mean().item()


def test_times_follow_their_distribution():
    uniform, logit_normal = drawn("uniform"), drawn("logit_normal")
    for times in (uniform, logit_normal):
        assert 0 <= times.min() < times.max() <= 1
        assert times.mean().item() == pytest.approx(0.5, abs=0.01)
    assert share_below(uniform, 0.25) == pytest.approx(0.25, abs=0.01)
    # P(sigmoid(z) < 1/4) = P(z < -ln 3) = 0.136
    assert share_below(logit_normal, 0.25) == pytest.approx(0.136, abs=0.01)
    with pytest.raises(ValueError, match="unknown distribution"):
        draw_times(1, "cauchy", TimestepSpec())


def test_scale_and_offset_move_the_logit_normal():
    # P(sigmoid(2 z + 1) < 1/2) = P(z < -1/2) = 0.3085
    times = drawn("logit_normal", sigmoid_scale=2, sigmoid_offset=1)
    assert share_below(times, 0.5) == pytest.approx(0.3085, abs=0.01)


@pytest.mark.parametrize(("alpha", "beta"), [(2, 2), (0.5, 0.5), (5, 1.5)])
def test_beta_has_the_moments_of_its_formula(alpha, beta):
    times = drawn("beta", beta_alpha=alpha, beta_beta=beta)
    total = alpha + beta
    assert times.mean().item() == pytest.approx(alpha / total, abs=0.01)
    variance = alpha * beta / (total**2 * (total + 1))
    assert times.var().item() == pytest.approx(variance, abs=0.005)


def test_cubic_follows_the_curve_through_its_weights():
    times = drawn("cubic", cubic_weights=[0, 1, 2])  # a line: density 2t
    assert share_below(times, 0.5) == pytest.approx(0.25, abs=0.01)
    assert times.mean().item() == pytest.approx(2 / 3, abs=0.01)
    weights = torch.tensor([1.0, 5.0, 2.0, 3.0])
    at = catmull_rom(weights, torch.tensor([0, 1 / 3, 2 / 3, 1.0]))
    torch.testing.assert_close(at, weights)


def test_fixed_times_are_drawn_evenly():
    values, counts = drawn("fixed", fixed=[0.25, 0.5, 1.0]).unique(return_counts=True)
    assert values.tolist() == [0.25, 0.5, 1.0]
    assert (counts / COUNT).tolist() == pytest.approx([1 / 3] * 3, abs=0.02)


@pytest.mark.parametrize("distribution", sorted(QUANTILES))
def test_a_stage_gets_times_of_its_range_alone(distribution):
    times = drawn(distribution, lowest=0.6, highest=0.9, fixed=[0.1, 0.7], shift=3)
    assert times.min() >= 0.6
    assert times.max() <= 0.9


def test_a_range_that_is_hardly_ever_drawn_still_ends():
    times = drawn("logit_normal", sigmoid_offset=15, lowest=0.0, highest=0.1)
    assert 0 <= times.min() < times.max() <= 0.1


@pytest.mark.parametrize("distribution", sorted(QUANTILES))
@pytest.mark.parametrize("spec", [{}, {"lowest": 0.2, "highest": 0.7}], ids=str)
def test_a_segmented_batch_takes_one_time_of_each_part(distribution, spec):
    """The n-th smallest lies between the (n-1)/8 and n/8 quantiles of what is drawn one by one."""
    fixed = [n / 40 for n in range(41)]
    apart = drawn(distribution, fixed=fixed, **spec).sort().values
    generator = torch.Generator().manual_seed(1)
    told = TimestepSpec(segmented=True, fixed=fixed, **spec)
    for _ in range(5):
        batch = draw_times(8, distribution, told, generator)
        assert not torch.equal(batch, batch.sort().values)
        parts = apart.quantile(torch.linspace(0, 1, 9))
        for n, time in enumerate(batch.sort().values):
            assert parts[n] - 0.03 <= time <= parts[n + 1] + 0.03


def test_a_stage_of_one_distribution_is_cut_out_of_it_and_not_bent():
    cut, whole = drawn("logit_normal", lowest=0.5), drawn("logit_normal")
    kept = whole[whole >= 0.5]
    for share in (0.1, 0.5, 0.9):
        assert cut.quantile(share).item() == pytest.approx(kept.quantile(share).item(), abs=0.01)


def test_the_shift_moves_the_middle_as_its_formula_says():
    assert shifted(torch.tensor([0.0, 0.5, 1.0]), 3.0).tolist() == [0.0, 0.75, 1.0]
    assert drawn("uniform", shift=3.0).median().item() == pytest.approx(0.75, abs=0.01)
    assert dynamic_shift(256) == pytest.approx(1.6487, abs=1e-4)
    assert dynamic_shift(4096) == pytest.approx(3.1582, abs=1e-4)


def test_a_dynamic_shift_depends_on_the_length_of_the_sample():
    def median(tokens, shift):
        spec = ObjectiveSpec(timestep_sampling="uniform", timesteps={"shift": shift})
        generator = torch.Generator().manual_seed(0)
        return FlowMatching(spec).draw(COUNT, tokens, generator).median().item()

    assert median(4096, "dynamic") == pytest.approx(3.1582 / 4.1582, abs=0.01)
    assert median(256, "dynamic") == pytest.approx(1.6487 / 2.6487, abs=0.01)
    assert median(4096, 3.0) == median(256, 3.0) == pytest.approx(0.75, abs=0.01)
