import pytest

from st_trainer.data.content import Content
from st_trainer.data.lyrics import MAX_LYRICS_BYTES, caption_and_lyrics, with_lyrics
from st_trainer.data.medium import UnreadableSampleError


def test_lyrics_stand_below_the_caption_and_keep_their_lines(tmp_path):
    (tmp_path / "a.lyrics.txt").write_bytes(b"\xef\xbb\xbf[verse] \r\nla la\n\nle le\n\n")
    text = with_lyrics("a song", Content.of_file(tmp_path / "a.lyrics.txt"))
    assert text == "a song\n[verse]\nla la\n\nle le"
    assert caption_and_lyrics(text) == ("a song", "[verse]\nla la\n\nle le")


def test_without_lyrics_the_caption_stays_alone(tmp_path):
    (tmp_path / "b.lyrics.txt").write_text(" \n")
    assert with_lyrics("a song", Content.of_file(tmp_path / "a.lyrics.txt")) == "a song"
    assert with_lyrics("a song", Content.of_file(tmp_path / "b.lyrics.txt")) == "a song"
    assert with_lyrics("a song", None) == "a song"
    assert caption_and_lyrics("a song") == ("a song", "")
    assert caption_and_lyrics("") == ("", "")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"caf\xe9", "a.lyrics.txt is not UTF-8"), (b"x" * (MAX_LYRICS_BYTES + 1), "is longer than")],
)
def test_lyrics_that_cannot_be_used_say_why(tmp_path, content, reason):
    (tmp_path / "a.lyrics.txt").write_bytes(content)
    with pytest.raises(UnreadableSampleError, match=reason):
        with_lyrics("a song", Content.of_file(tmp_path / "a.lyrics.txt"))
