"""Blocks that are alike: a few of them are traced, and what the others would add is added.

The code of a step does the same for each of them, so what lives at a moment grows by the same
bytes with every block that was answered, and by what is left of it (its gradients) once it was
gone back through. Both are read off two neighbours, and moments are told apart, since another one
may be the peak of a longer model.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import lcm
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from st_trainer.execution.blocks import repeated_blocks
from st_trainer.planning.trace import Mark, Trace, Work

_PERIODS = (1, 2, 3, 4)
"""Models may take turns between kinds of blocks."""


@dataclass(frozen=True)
class Run:
    """Neighbours in a list of modules that are alike."""

    owner: nn.Module
    """What has the list."""
    name: str
    """The list's name in it."""
    kept: tuple[nn.Module, ...]
    """Those of the run that are traced."""
    others: tuple[nn.Module, ...]
    """Those that are not; they lie before the last ``step`` of those."""
    step: int
    """So many blocks on, a block does the same at the same place of an interval."""


@dataclass(frozen=True)
class Cost:
    """What a computation takes."""

    peak: int
    """Bytes at its peak."""
    work: Work


def runs_of(module: nn.Module, interval: int) -> list[Run]:
    """The runs of ``module`` of which a part will do; ``interval`` as blocks are computed anew."""
    lists: dict[str, list[nn.Module]] = {}
    for name, block in repeated_blocks(module):
        parent, _, place = name.rpartition(".")
        if parent and place.isdecimal():
            lists.setdefault(parent, []).append(block)
    found = []
    for parent, blocks in lists.items():
        above, _, name = parent.rpartition(".")
        owner = module.get_submodule(above)
        whole = getattr(owner, name)
        if isinstance(whole, nn.ModuleList) and len(whole) == len(blocks):
            found += [
                _run(owner, name, blocks[start:end], lcm(period, interval))
                for start, end, period in _alike([_described(each) for each in blocks])
            ]
    return [run for run in found if run.others]


def _run(owner: nn.Module, name: str, blocks: Sequence[nn.Module], step: int) -> Run:
    """As few blocks as have two neighbours, ``step`` apart, of which none is the first."""
    fewest = step + 2
    count = fewest + (len(blocks) - fewest) % step
    if count >= len(blocks):
        return Run(owner, name, tuple(blocks), (), step)
    first, last = blocks[: count - step], blocks[len(blocks) - step :]
    between = blocks[count - step : len(blocks) - step]
    return Run(owner, name, (*first, *last), tuple(between), step)


def _alike(kinds: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """Start, end and period of the longest stretches in which kinds come back."""
    start = 0
    while start < len(kinds):
        ends = {period: _end(kinds, start, period) for period in _PERIODS}
        known = [period for period in _PERIODS if ends[period] - start >= 2 * period]
        period = max(known or [1], key=lambda each: (ends[each], -each))
        yield start, ends[period], period
        start = ends[period]


def _end(kinds: Sequence[str], start: int, period: int) -> int:
    end = start + period
    while end < len(kinds) and kinds[end] == kinds[end - period]:
        end += 1
    return min(end, len(kinds))


def _described(block: nn.Module) -> str:
    """The same for blocks that compute alike: their parts, sizes and plain attributes."""
    sizes = [
        (name, tuple(each.shape), each.dtype, each.requires_grad)
        for name, each in block.named_parameters()
    ]
    plain = [
        {name: value for name, value in vars(part).items() if type(value) in _PLAIN}
        for part in block.modules()
    ]
    for each in plain:
        for own in _OWN_PLACE:
            each.pop(own, None)
    return f"{type(block)} {sizes} {plain}"


_PLAIN = (bool, int, float, str, tuple, type(None))
_OWN_PLACE = ("layer_idx", "layer_index", "block_idx", "block_index")
"""Attributes that say which block it is, and not what it does."""


def cost(modules: Iterable[nn.Module], interval: int, compute: Callable[[], Any]) -> Cost:
    """What ``compute`` takes, which calls ``modules``, and perhaps goes back through them."""
    runs = [run for module in modules for run in runs_of(module, interval)]
    with Trace() as trace, _shortened(runs, trace):
        compute()
    found = _longer(trace, runs)
    if found is None:  # a block was called otherwise than once
        with Trace() as trace:
            compute()
        return Cost(trace.peak, trace.work)
    return found


@contextmanager
def _shortened(runs: Sequence[Run], trace: Trace) -> Iterator[None]:
    """While it lasts, others are left out, and blocks tell ``trace`` when they are used."""
    whole = {(id(run.owner), run.name): (run.owner, run.name) for run in runs}
    lists = [(owner, name, getattr(owner, name)) for owner, name in whole.values()]
    gone = {id(each) for run in runs for each in run.others}
    with ExitStack() as stack:
        for owner, name, blocks in lists:
            stack.callback(setattr, owner, name, blocks)
            setattr(owner, name, nn.ModuleList(each for each in blocks if id(each) not in gone))
        for number, run in enumerate(runs):
            for place, block in enumerate(run.kept):
                for handle in _watch(block, trace, (number, place)):
                    stack.callback(handle.remove)
        yield


def _watch(block: nn.Module, trace: Trace, place: tuple[int, int]) -> list[Any]:
    """Have ``trace`` marked when ``block`` is first called, and when the way back reaches it."""
    back: list[bool] = []

    def called(*_told: Any) -> None:
        if not _going_back():
            trace.mark((*place, "forward"))

    def reached(_gradient: Tensor) -> None:
        if not back:
            back.append(True)
            trace.mark((*place, "backward"))

    def answered(_block: nn.Module, _told: Any, result: Any) -> None:
        if _going_back():
            return
        for each in tree_leaves(result):
            if isinstance(each, Tensor) and each.requires_grad:
                each.register_hook(reached)  # type: ignore[no-untyped-call]

    return [block.register_forward_pre_hook(called), block.register_forward_hook(answered)]


def _going_back() -> bool:
    """Whether gradients are being made now, for which blocks may be computed anew."""
    return torch._C._current_graph_task_id() != -1  # noqa: SLF001 -- there is no public way


def _longer(trace: Trace, runs: Sequence[Run]) -> Cost | None:
    """What ``trace`` would have found with all blocks; None where it does not tell."""
    marks = {mark.name: mark for mark in trace.marks}
    if len(marks) != len(trace.marks):
        return None
    shifts: dict[Any, tuple[int, int]] = {}
    work = trace.work
    for number, run in enumerate(runs):
        found = _added(marks, number, run)
        if found is None:
            return None
        more, own = found
        work += more
        shifts |= {mark: (number, size) for mark, size in own.items()}
    added, peak = dict.fromkeys(range(len(runs)), 0), 0
    for mark, size in zip(trace.marks, trace.peaks, strict=True):
        if mark.name in shifts:
            number, added_by = shifts[mark.name]
            added[number] = added_by
        peak = max(peak, size + sum(added.values()))
    return Cost(peak, work)


def _added(marks: Mapping[Any, Mark], number: int, run: Run) -> tuple[Work, dict[Any, int]] | None:
    """What the others of ``run`` do, and their bytes from some marks on.

    On the way there the first block is unlike the others, on the way back the last: gradients come
    to it from what follows. None: some of its blocks were called and others were not.
    """
    last, times = len(run.kept) - 1, len(run.others) // run.step
    before = last - run.step
    there = [marks.get((number, place, "forward")) for place in (before, last)]
    back = [marks.get((number, place, "backward")) for place in (last - 1, before - 1)]
    if there + back == [None] * 4:
        return Work(), {}  # nothing called it
    if there[0] is None or there[1] is None:
        return None
    grown = there[1].live - there[0].live
    work = there[1].work - there[0].work
    shifts = {(number, before + 1, "forward"): times * grown}
    if back[0] is not None and back[1] is not None:
        left = grown + back[1].live - back[0].live
        work += back[1].work - back[0].work
        shifts[number, before, "backward"] = times * left
    elif back != [None, None]:
        return None
    return work * times, shifts
