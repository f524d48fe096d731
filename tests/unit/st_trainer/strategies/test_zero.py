"""How ZeRO's pieces are found by name; with DeepSpeed itself: benchmarks/distributed_equal.py."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from st_trainer.strategies.zero import Zero, ZeroReplicated, ZeroSharded

SHAPES = {"first": (2, 3), "second": (5,)}


def numbered(start):
    """Weights by name, each of whose numbers is another."""
    sizes = {name: torch.Size(shape).numel() for name, shape in SHAPES.items()}
    begins = {"first": start, "second": start + sizes["first"]}
    return {
        name: torch.arange(begins[name], begins[name] + sizes[name], dtype=torch.float32).view(
            shape
        )
        for name, shape in SHAPES.items()
    }


def stage_3(rank, processes):
    """As much of the strategy as cuts: weights are elsewhere, pieces are of one length."""
    strategy = ZeroSharded(None, SimpleNamespace(process_index=rank, num_processes=processes))
    strategy._parameters = {}
    for name, whole in numbered(0).items():
        parameter = nn.Parameter(torch.empty(0))
        parameter.ds_shape, parameter.ds_numel = whole.shape, whole.numel()
        parameter.ds_tensor = torch.empty(-(-whole.numel() // processes))
        strategy._parameters[name] = parameter
    return strategy


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_pieces_of_all_processes_are_the_whole_and_only_the_last_are_filled_up(processes):
    for name, whole in numbered(1).items():
        pieces, spans = [], []
        for rank in range(processes):
            strategy = stage_3(rank, processes)
            piece, (start, count) = strategy.cut(name, whole), strategy.span(name)
            assert torch.equal(piece[:count], whole.flatten()[start : start + count])
            assert not piece[count:].any()
            filled = strategy.filled(name, whole.flatten()[start : start + count], piece)
            assert torch.equal(filled, piece)
            pieces.append(piece)
            spans.append((start, count))
        assert len({len(each) for each in pieces}) == 1
        assert torch.equal(torch.cat(pieces)[: whole.numel()], whole.flatten())
        assert sum(count for _, count in spans) == whole.numel()


def test_weights_of_another_shape_are_named():
    with pytest.raises(ValueError, match=r"first has another shape, \(3, 2\)"):
        stage_3(0, 2).cut("first", torch.zeros(3, 2))
    with pytest.raises(ValueError, match="second has another shape: 1 numbers lie here"):
        stage_3(0, 2).filled("second", torch.zeros(1), torch.zeros(3))


class Flat(Zero):
    """One process, whose masters lie in one flat tensor, first ``first`` and then ``second``."""

    gathered = cut = span = frozen = None

    def __init__(self, flat):
        super().__init__(None, SimpleNamespace(sync_gradients=True))
        self.flat = nn.Parameter(flat)
        self._inner = torch.optim.Adam([self.flat], lr=0.5)
        self._groups = [["first", "second"]]
        self._parameters = dict.fromkeys(SHAPES)

    def _flat_of(self, name):
        return self.flat, *{"first": (0, 6), "second": (6, 5)}[name]


def flat(start):
    return Flat(torch.cat([each.flatten() for each in numbered(start).values()]))


def test_the_state_of_the_optimiser_is_told_by_parameter_and_comes_back():
    one = flat(1)
    one.flat.grad = one.flat.detach().clone()
    one._inner.step()
    document = one.optimizer_parts()
    gradients = numbered(1)
    for number, name in enumerate(SHAPES):
        held = document["state"][number]
        torch.testing.assert_close(held["exp_avg"], 0.1 * gradients[name].flatten())
        assert held["step"].item() == 1
    [group] = document["param_groups"]
    assert (group["params"], group["lr"]) == ([0, 1], 0.5)
    other = flat(100)
    other._inner.param_groups[0]["lr"] = 9.0
    other.load_optimizer(document)
    mine, theirs = (each._inner.state[each.flat] for each in (one, other))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert other._inner.param_groups[0]["lr"] == 0.5


def test_parts_share_the_memory_of_the_masters():
    one = flat(1)
    parts = one.parts()
    parts["second"].zero_()
    assert torch.equal(one.flat[:6], numbered(1)["first"].flatten())
    assert not one.flat[6:].any()


def test_deepspeed_takes_a_step_with_the_last_part_alone():
    strategy, told = flat(0), []
    for last in (False, True):
        with strategy.adding_up(last=last):
            told.append(strategy.accelerator.sync_gradients)
        assert strategy.accelerator.sync_gradients
    assert told == [False, True]
    with pytest.raises(ZeroDivisionError), strategy.adding_up(last=False):
        told.append(1 // 0)
    assert strategy.accelerator.sync_gradients


def test_a_piece_whose_master_lies_elsewhere_is_empty():
    strategy = ZeroReplicated(None, None)
    strategy._parameters = {"first": SimpleNamespace(_hp_mapping=None, shape=torch.Size((2, 3)))}
    strategy._groups = [["first"]]
    strategy._zero = SimpleNamespace(single_partition_of_fp32_groups=[torch.ones(4)])
    assert strategy.span("first") == (0, 0)
    assert strategy.cut("first", torch.ones(2, 3)).numel() == 0
    assert strategy.parts()["first"].numel() == 0
