import pytest

from st_trainer.data.captions import PADDING, START, UNKNOWN, Vocabulary, words_of


def test_words_and_marks_are_split_and_lowered():
    assert words_of("A Hand-written THREE, über!") == [
        "a",
        "hand",
        "-",
        "written",
        "three",
        ",",
        "über",
        "!",
    ]


def test_the_most_frequent_words_are_kept_and_ties_go_by_alphabet():
    vocabulary = Vocabulary.build(["b a", "b c", "c d"], size=6)
    assert vocabulary.words == ("b", "c", "a")
    assert len(vocabulary) == 6


def test_captions_are_padded_cut_and_open_with_start():
    vocabulary = Vocabulary(["red", "dog"])
    ids = vocabulary.encode(["dog", "", "red red red dog", "red cat"], length=3)
    assert ids.tolist() == [
        [START, 4, PADDING, PADDING],
        [START, PADDING, PADDING, PADDING],
        [START, 3, 3, 3],
        [START, 3, UNKNOWN, PADDING],
    ]


@pytest.mark.parametrize(("caption", "unknown"), [("red dog", []), ("a red fox", ["a", "fox"])])
def test_unknown_words_are_named(caption, unknown):
    assert Vocabulary(["red", "dog"]).unknown(caption) == unknown
