import json
from collections import Counter

import pytest
from PIL import Image

from st_shared.spec import DatasetSpec
from st_shared.spec.captions import CaptionSpec
from st_trainer.data.caption_text import MAX_CAPTION_BYTES, MAX_CAPTIONS, cleaned, drawn
from st_trainer.data.images import Images
from st_trainer.data.medium import UnreadableSampleError
from st_trainer.data.reading import read_datasets


@pytest.fixture
def folder(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a_red-house.png")
    return tmp_path


def read(folder, **captions):
    dataset = DatasetSpec.model_validate({"path": str(folder), "captions": captions})
    return read_datasets([dataset], [folder], Images(1, 4, 4)).samples


def captions_of(folder, **captions):
    return list(read(folder, **captions).captions)


def test_a_caption_comes_from_the_name_of_the_file(folder):
    assert captions_of(folder, source="name") == ["a red house"]


def test_one_prompt_stands_for_all(folder):
    assert captions_of(folder, source="instance", instance_prompt="sks house") == ["sks house"]


def test_lines_of_a_file_are_one_caption_or_several(folder):
    (folder / "a_red-house.cap").write_text("one\n\n  two \n")
    assert captions_of(folder, suffix=".cap") == ["one two"]
    assert captions_of(folder, suffix=".cap", lines="each") == ["one", "two"]
    assert captions_of(folder, suffix=".cap", lines="each", several="first") == ["one"]


@pytest.mark.parametrize(
    ("document", "key", "found"),
    [
        ({"caption": "one"}, "caption", ["one"]),
        ({"texts": {"long": ["one", "two"]}}, "texts.long", ["one", "two"]),
        ({"texts.long": "dotted"}, "texts.long", ["dotted"]),
    ],
)
def test_json_beside_a_sample_holds_one_or_several(folder, document, key, found):
    (folder / "a_red-house.json").write_text(json.dumps(document))
    assert captions_of(folder, source="json", key=key) == found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "a_red-house.json is no JSON"),
        ("[]", "caption of a_red-house.json is missing"),
        ('{"caption": 3}', "neither a text nor a list of texts"),
        ('{"caption": ["a", 3]}', "neither a text nor a list of texts"),
        ('{"caption": " "}', "its caption is empty"),
        ("[" * 100_000, "is no JSON"),
    ],
)
def test_json_that_holds_none_says_so(folder, text, reason):
    (folder / "a_red-house.json").write_text(text)
    Image.new("L", (4, 4)).save(folder / "b.png")
    (folder / "b.json").write_text('{"caption": "good"}')
    dataset = DatasetSpec(path=str(folder), captions=CaptionSpec(source="json"))
    reading = read_datasets([dataset], [folder], Images(1, 4, 4))
    assert reason in reading.skipped[0].text


def test_captions_are_replaced_and_get_a_prefix():
    spec = CaptionSpec(replace={r"\bphoto of\b": "", r"(\d+) cats": r"cats, \1"}, prefix="sks, ")
    assert cleaned(["a photo of 3 cats", "photo of"], spec) == ("sks, a cats, 3",)


def test_too_long_and_too_many_are_refused():
    with pytest.raises(UnreadableSampleError, match="a caption is longer"):
        cleaned(["x" * (MAX_CAPTION_BYTES + 1)], CaptionSpec())
    with pytest.raises(UnreadableSampleError, match=f"more than {MAX_CAPTIONS} captions"):
        cleaned(["x"] * (MAX_CAPTIONS + 1), CaptionSpec())


def test_each_of_several_is_drawn_about_as_often_and_the_seed_decides():
    captions = ["a", "b", "c"]
    found = [drawn(captions, CaptionSpec(), [5, step]) for step in range(600)]
    assert found == [drawn(captions, CaptionSpec(), [5, step]) for step in range(600)]
    assert all(150 < count < 250 for count in Counter(found).values())


def test_parts_are_shuffled_behind_those_that_stay_and_lyrics_are_left_alone():
    spec = CaptionSpec(shuffle=True, keep_first=1, prefix="sks: ")
    text = "sks: one, two, three, four\nla, la"
    found = {drawn([text], spec, [step]) for step in range(60)}
    assert len(found) == 6
    assert {each[:10] for each in found} == {"sks: one, "}
    assert {each.partition("\n")[2] for each in found} == {"la, la"}
    assert {frozenset(each[10:].split("\n")[0].split(", ")) for each in found} == {
        frozenset({"two", "three", "four"})
    }


def test_a_batch_draws_by_seed_step_and_place(folder):
    (folder / "a_red-house.txt").write_text("\n".join("abcdefgh"))
    samples = read(folder, lines="each")
    found = samples.captions_at([0] * 64, (3, 1))
    assert len(set(found)) == 8
    assert found == samples.captions_at([0] * 64, (3, 1))
    assert found != samples.captions_at([0] * 64, (3, 2))


def test_a_dataset_may_have_its_own_share_of_dropped_captions(folder):
    (folder / "a_red-house.txt").write_text("a house")
    assert read(folder, dropout=0.5).caption_dropout([0, 0], 0.1) == [0.5, 0.5]
    assert read(folder).caption_dropout([0], 0.1) == [0.1]
