"""Pieces that several processes wrote are read by any number of others, and by torch itself."""

from itertools import pairwise

import pytest
import torch
from torch.distributed import checkpoint as distributed_checkpoint
from torch.distributed.checkpoint import HuggingFaceStorageReader

from st_trainer.shards import Piece, Shards, described, shard_name
from st_trainer.weights import write_tensors

WHOLE = torch.arange(11.0)
CUTS = (0, 3, 4, 11)


def write(folder, cuts=CUTS, skipped=()):
    """What processes leave that hold ``WHOLE`` between ``cuts``, and a number of their own."""
    count = len(cuts) - 1
    for rank, (start, end) in enumerate(pairwise(cuts)):
        pieces = {"weights.w": Piece(start, WHOLE[start:end])} if end > start else {}
        pieces[f"ema.of-{rank}"] = Piece(0, torch.full((1,), float(rank)))
        if rank not in skipped:
            tensors = {name: each.numbers for name, each in pieces.items()}
            write_tensors(folder / shard_name(rank, count), tensors, described(pieces))


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 16])
def test_any_number_of_processes_reads_what_three_wrote(tmp_path, parts):
    write(tmp_path)
    shards, size = Shards(tmp_path), -(-len(WHOLE) // parts)
    assert shards.length("weights.w") == len(WHOLE)
    assert sorted(shards.below("ema")) == ["of-0", "of-1", "of-2"]
    for start in range(0, size * parts, size):
        length = max(0, min(size, len(WHOLE) - start))
        found = shards.read("weights.w", start, length)
        assert torch.equal(found, WHOLE[start : start + length])


def test_a_process_without_a_piece_writes_none(tmp_path):
    write(tmp_path, (0, 6, 11, 11))
    assert torch.equal(Shards(tmp_path).read("weights.w", 0, 11), WHOLE)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_file_that_is_not_there_is_missed(tmp_path, rank):
    write(tmp_path, skipped={rank})
    with pytest.raises(ValueError, match=f"in no file from number {CUTS[rank]} on"):
        Shards(tmp_path).read("weights.w", 0, 11)


def test_a_file_that_does_not_say_where_its_pieces_begin_is_refused(tmp_path):
    write_tensors(tmp_path / shard_name(0, 1), {"weights.w": WHOLE})
    with pytest.raises(ValueError, match=r"nothing says where the piece of weights\.w begins"):
        Shards(tmp_path)


def test_torch_reads_them_too(tmp_path):
    """With ``torch.distributed.checkpoint``, whose form it is."""
    write(tmp_path)
    state = {"weights.w": torch.zeros(11)}
    reader = HuggingFaceStorageReader(str(tmp_path))
    with pytest.warns(UserWarning, match="in a single process"):
        distributed_checkpoint.load(state, storage_reader=reader, no_dist=True)
    assert torch.equal(state["weights.w"], WHOLE)
