"""What two processes hold and say, all in one pair of them: held to one process, and to itself."""

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from rank_processes import fresh_states, together
from safetensors.torch import load_file, save_file
from shades import make_shades
from torch import distributed
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from st_shared.spec.distributed import DistributedSpec
from st_shared.spec.training import TrainingSpec
from st_trainer import loop
from st_trainer.adapters.adapter import trained
from st_trainer.execution.blocks import repeated_blocks
from st_trainer.journal import SilentJournal
from st_trainer.ranks import Ranks, join
from st_trainer.run import open_session
from st_trainer.run_folder import RunFolder
from st_trainer.strategies.replicated import Replicated

# Of Diffusers, which shares tokens with a function that torch has renamed.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.distributed._functional_collectives.all_gather_tensor:FutureWarning"
)

SHARED = {
    "ddp": {"processes": 2},
    "fsdp2": {"strategy": "fsdp2", "processes": 2},
    "tokens": {"context_parallel": 2, "processes": 2},
}
HALVED = {"batch_size": 1, "accumulation": 2}
STEPS = 2
PREPARE = Replicated.prepare
CLIPPED = {"name": "sgd", "learning_rate": 1.0, "max_grad_norm": 3e-3}
"""Steps as long as their gradients, which are clipped: a norm of some alone would show."""


def specs_of(shades, base):
    """What one process trains, and what two do in each way to share, by that way."""
    config = {"image_size": 4, "width": 16, "depth": 1, "heads": 2, "caption_length": 3}
    dit = {"model": {"family": "pixel_dit", "config": config}, "batch_size": 4}
    flux = {"model": {"family": "flux", "base": str(base), "config": {"resolution": 16}}}
    flux |= {"adapter": {"kind": "lora", "rank": 2}, "batch_size": 2}
    common = {"datasets": [{"path": str(shades)}], "optimizer": CLIPPED, "seed": 5}
    alone, shared = {}, {}
    for name, distributed_over in SHARED.items():
        kind = common | (flux if name == "tokens" else dit)
        halves = {} if name == "tokens" else HALVED
        alone[name] = TrainingSpec.model_validate(kind)
        shared[name] = TrainingSpec.model_validate(
            kind | halves | {"distributed": distributed_over}
        )
    return alone, shared


def opened(spec, root):
    """A session in states as of a new process."""
    for name in ("ACCELERATE_USE_FSDP", "FSDP_VERSION"):
        os.environ.pop(name, None)
    fresh_states()
    folder = RunFolder(root)
    folder.create()
    sources = [Path(dataset.path) for dataset in spec.datasets]
    return open_session(spec, sources, folder, SilentJournal())


def stepped(session):
    """Losses, norms, and whole weights and their average after some steps, where they are whole."""
    told = [loop.step(session, session.sampler.take(session.batch_size), 1.0) for _ in range(STEPS)]
    parts = session.strategy.parts()
    [ema] = session.techniques
    whole, average = (session.strategy.whole(each, each) for each in (parts, ema.average))
    whole |= {f"average of {name}": each for name, each in average.items()}
    return told, {name: each.detach().clone() for name, each in whole.items()}


def kept(path, told):
    path.write_text(json.dumps(told))


def said_by(rank, root):
    """What this process hears of the others."""
    state = join(DistributedSpec(processes=2))
    ranks, own = Ranks(state), root / f"own-{rank}"
    own.mkdir()
    group = distributed.group.WORLD._get_backend(torch.device("cpu"))
    return {
        "mean": ranks.mean(torch.tensor(rank + 1.0)).item(),
        "any": [ranks.any(rank == 1), ranks.any(flag=False)],
        "gather": ranks.gather(f"rank {rank}"),
        "sharing one": ranks.sharing(root),
        "sharing none": ranks.sharing(own),
        "left": [path.name for path in (*root.glob(".rank*"), *own.iterdir())],
        "shares": [
            (each.share.rank, each.share.parts) for each in (ranks, Ranks(state, together=2))
        ],
        "first": ranks.is_first,
        "patience": group.options._timeout / timedelta(hours=1),
    }


def held_by(session):
    """Whether parts, wholes and places of weights that are spread fit each other, by name."""
    strategy, found = session.strategy, {}
    parts = {name: each.clone() for name, each in strategy.parts().items()}
    whole = {name: strategy.gathered(name, each) for name, each in parts.items()}
    spans = session.ranks.gather({name: strategy.span(name) for name in parts})
    found["cut"] = all(torch.equal(strategy.cut(n, each), parts[n]) for n, each in whole.items())
    numbers = {name: each.flatten() for name, each in whole.items()}
    found["spans"] = all(
        torch.equal(numbers[name].narrow(0, *strategy.span(name)), each.flatten())
        for name, each in parts.items()
    )
    ends = {name: (spans[0][name], spans[1][name]) for name in parts}
    found["no gaps"] = all(
        (first[0], second[0], sum(second)) == (0, first[1], len(numbers[name]))
        for name, (first, second) in ends.items()
    )
    found["uneven"] = sum(first[1] != second[1] for first, second in ends.values())
    blocks = [block for _, block in repeated_blocks(session.module)]
    found["each block by itself"] = bool(blocks) and all(isinstance(b, FSDPModule) for b in blocks)
    answer = answer_of(session)
    with strategy.showing({name: torch.zeros_like(each) for name, each in parts.items()}):
        found["shown"] = not answer_of(session).any().item()
    found["as before"] = torch.equal(answer_of(session), answer)
    with strategy.assembled(session.adapter):
        plain = dict(session.module.named_parameters())
        found["assembled"] = not session.ranks.is_first or all(
            torch.equal(plain[name], each) for name, each in whole.items()
        )
    found["spread again"] = all(isinstance(p, DTensor) for p in trained(session.module).values())
    strategy.put({name: torch.zeros_like(each) for name, each in parts.items()})
    strategy.load(session.adapter, whole)
    found["loaded"] = torch.equal(answer_of(session), answer)
    return found


@torch.no_grad()
def answer_of(session):
    """The model's answer to something that is always the same; nothing is settled after it."""
    noisy, denoiser = torch.linspace(-1, 1, 16).view(1, 1, 4, 4), session.denoiser
    return denoiser.predict(noisy, torch.tensor([0.5]), denoiser.encode(["shade 1"]))


def other_weights(self, denoiser, optimizer):
    """Prepare a model that begins elsewhere, as where processes draw other weights."""
    with torch.no_grad():
        for each in denoiser.module.parameters():
            each.add_(1)
    return PREPARE(self, denoiser, optimizer)


def in_each(rank, root, shared):
    """All that two processes do, so that they are started once."""
    kept(root / f"said.{rank}.json", said_by(rank, root))
    for name, spec in shared.items():
        Replicated.prepare = other_weights if name == "ddp" and rank == 1 else PREPARE
        session = opened(spec, root / f"run-{name}-{rank}")
        told, weights = stepped(session)
        kept(root / f"{name}.{rank}.json", told)
        if weights:
            save_file(weights, root / f"{name}.{rank}.safetensors")
        if name == "fsdp2":
            kept(root / f"held.{rank}.json", held_by(session))
    return 0


@pytest.fixture(scope="module")
def both(tmp_path_factory, base_folder):
    """The folder in which two processes have told of themselves, and what one would train."""
    root = tmp_path_factory.mktemp("shared")
    make_shades(root / "shades")
    alone, shared = specs_of(root / "shades", base_folder("flux"))
    assert together(lambda rank: in_each(rank, root, shared)) == [0, 0]
    return root, alone


def of_each(root, name):
    return [json.loads((root / f"{name}.{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", SHARED)
def test_losses_norms_and_weights_are_those_of_one_process(both, name):
    root, alone = both
    told, weights = stepped(opened(alone[name], root / f"run-{name}"))
    for found in of_each(root, name):
        for ours, one in zip(found, told, strict=True):
            assert ours == pytest.approx(one, rel=1e-4)
    files = sorted(root.glob(f"{name}.*.safetensors"))
    assert len(files) == (1 if name == "fsdp2" else 2)  # replicas each hold the whole
    for found in map(load_file, files):
        assert found.keys() == weights.keys()
        for key, each in weights.items():
            torch.testing.assert_close(found[key], each, rtol=0, atol=1e-6)
    assert min(norm for _, norm in told) > 2 * CLIPPED["max_grad_norm"]  # else nothing is clipped


def test_they_hear_the_same_of_each_other(both):
    for rank, said in enumerate(of_each(both[0], "said")):
        assert said == {
            "mean": 1.5,
            "any": [True, False],
            "gather": ["rank 0", "rank 1"],
            "sharing one": [rank, 2],
            "sharing none": [0, 1],
            "left": [],
            "shares": [[rank, 2], [0, 1]],
            "first": rank == 0,
            "patience": 4.0,
        }


def test_what_is_spread_is_whole_when_put_together_and_comes_back_as_it_was(both):
    for held in of_each(both[0], "held"):
        assert held.pop("uneven") > 0  # some have rows that cannot be dealt evenly
        assert [what for what, holds in held.items() if not holds] == []
