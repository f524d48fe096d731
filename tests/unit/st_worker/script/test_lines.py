import pytest

from st_worker.script.lines import LONGEST_LINE_BYTES, LineSplitter


def texts_of(*pieces: bytes) -> list[str]:
    lines = LineSplitter()
    found = [line.text for piece in pieces for line in lines.feed(piece)]
    return found + [line.text for line in lines.end()]


@pytest.mark.parametrize(
    ("pieces", "texts"),
    [
        ((b"a\nb\n",), ["a", "b"]),
        ((b"a", b"b\nc", b"\n"), ["ab", "c"]),
        ((b"\n\nx\n",), ["", "", "x"]),
        ((b"no break",), ["no break"]),
        ((b"",), []),
        ((b"a\r\nb\r", b"\nc"), ["a", "b", "c"]),
        ((b"10%\r20%\r", b"30%\rdone\n"), ["done"]),
        ((b"\r10%", b"\r20%", b"\n"), ["20%"]),
        ((b"\xe2\x82", b"\xac\n"), ["€"]),
        ((b"\xff\n", b"\xc3"), ["\ufffd", "\ufffd"]),
        ((b"a\0b\n",), ["a\ufffdb"]),
    ],
)
def test_pieces_become_lines(pieces, texts):
    assert texts_of(*pieces) == texts


def test_lines_come_out_the_same_wherever_the_pieces_end():
    printed = "eins\r\nzwei ü\n\n50%\r100%\nlast".encode()
    whole = texts_of(printed)
    assert whole == ["eins", "zwei ü", "", "100%", "last"]
    for cut in range(len(printed)):
        assert texts_of(printed[:cut], printed[cut:]) == whole
    assert texts_of(*(printed[n : n + 1] for n in range(len(printed)))) == whole


def test_a_long_line_is_kept_in_part_and_says_how_much_is_missing():
    lines = LineSplitter()
    for _ in range(1000):
        assert list(lines.feed(b"x" * 65_536)) == []
        assert len(lines._kept) == LONGEST_LINE_BYTES
    (line,) = lines.feed(b"\nnext")
    cut = 65_536_000 - LONGEST_LINE_BYTES
    assert line.text == "x" * LONGEST_LINE_BYTES + f"… ({cut} more bytes cut)"
    assert line.size == 65_536_000
    assert [each.text for each in lines.end()] == ["next"]
