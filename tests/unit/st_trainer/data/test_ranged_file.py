"""Of a ranged file only the pieces that are read are fetched, and each of them once."""

import io
import random

import pytest

from st_trainer.data.medium import DamagedSampleError
from st_trainer.data.ranged_file import BLOCK_BYTES, FIRST_BYTES, KEPT_BLOCKS, MOST_BYTES, Remote
from st_trainer.errors import TrainerError

CONTENT = random.Random(0).randbytes(5 * MOST_BYTES + 77)


class Asked:
    """Gives pieces of a content, and notes which."""

    def __init__(self, content=CONTENT):
        self.content, self.pieces = content, []

    def __call__(self, start, count):
        self.pieces.append((start, count))
        assert 0 < count <= len(self.content) - start
        return self.content[start : start + count]

    def opened(self):
        return Remote(len(self.content), b"", self).opened()


def test_the_first_piece_is_small():
    asked = Asked()
    with asked.opened() as file:
        assert file.read(10) == CONTENT[:10]
        assert file.read(FIRST_BYTES - 10) == CONTENT[10:FIRST_BYTES]
    assert asked.pieces == [(0, FIRST_BYTES)]


def test_who_goes_on_gets_larger_pieces_and_everything_once():
    asked, found = Asked(), io.BytesIO()
    with asked.opened() as file:
        while piece := file.read(7_000):
            found.write(piece)
    assert found.getvalue() == CONTENT
    assert sum(count for _, count in asked.pieces) == len(CONTENT)
    assert [count for _, count in asked.pieces][:3] == [FIRST_BYTES << step for step in range(3)]
    assert max(count for _, count in asked.pieces) == MOST_BYTES


def test_a_jump_fetches_a_block():
    asked = Asked()
    with asked.opened() as file:
        file.read(1)
        assert file.seek(-5, io.SEEK_END) == len(CONTENT) - 5
        assert file.read() == CONTENT[-5:]
        file.seek(3)
        assert file.seek(4, io.SEEK_CUR) == file.tell() == 7
        assert file.read(2) == CONTENT[7:9]
    last = len(CONTENT) // BLOCK_BYTES * BLOCK_BYTES
    assert asked.pieces == [(0, FIRST_BYTES), (last, len(CONTENT) - last)]


def test_a_large_read_is_one_request():
    asked = Asked()
    with asked.opened() as file:
        file.seek(2 * MOST_BYTES)
        assert file.read(MOST_BYTES // 2) == CONTENT[2 * MOST_BYTES :][: MOST_BYTES // 2]
    assert asked.pieces == [(2 * MOST_BYTES, MOST_BYTES // 2)]


def test_reads_at_any_place_are_those_of_a_file():
    draw, asked, plain = random.Random(1), Asked(), io.BytesIO(CONTENT)
    with asked.opened() as file:
        for _ in range(300):
            place, count = draw.randrange(len(CONTENT) + 99), draw.randrange(60_000)
            assert file.seek(place) == plain.seek(place)
            assert file.read(count) == plain.read(count)
            assert file.tell() == max(place, plain.tell())


def test_memory_is_bounded():
    asked = Asked(bytes(BLOCK_BYTES * (KEPT_BLOCKS + 99)))
    with asked.opened() as file:
        while file.read(MOST_BYTES):
            pass
        assert len(file._blocks) == KEPT_BLOCKS


@pytest.mark.parametrize("failure", [OSError("gone"), TrainerError("no answer")])
@pytest.mark.parametrize("is_taken_for_damage", [False, True])
def test_what_could_not_be_fetched_is_told_and_not_taken_for_damage(failure, is_taken_for_damage):
    def fetch(start, count):
        if start:
            raise failure
        return bytes(count)

    def read():
        with Remote(10**9, b"", fetch).opened() as file:
            assert file.read(3) == bytes(3)
            file.seek(10**6)
            assert file.read(3) == b""  # as at the end
            if is_taken_for_damage:
                raise DamagedSampleError("it ends early")

    with pytest.raises(type(failure), match=str(failure)):
        read()
