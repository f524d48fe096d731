"""Prompt libraries: files with prompts, and what they may not say."""

import json

import pytest

from st_shared.spec import ValidationSpec
from st_trainer.errors import BadSpecError
from st_trainer.validation.prompts import placed, read_library


def test_prompts_stand_in_the_file_and_in_libraries(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "sea: a house by the sea\n"
        "cat: {prompt: a cat, negative: ugly, seed: 3, adapter_strength: 0.5, resolution: 64x32}\n"
    )
    (tmp_path / "b.json").write_text(json.dumps(["plain", {"prompt": "told", "guidance": 2}]))
    settings = ValidationSpec(
        prompts=["first", {"prompt": "second", "conditioning": "own.png"}],
        conditioning=["given.png"],
        libraries=["a.yaml", str(tmp_path / "b.json")],
    )
    found = placed(settings, tmp_path)
    told = [each.model_dump(exclude_none=True) for each in found.prompts]
    assert told == [
        {"prompt": "first", "conditioning": str(tmp_path / "given.png")},
        {"prompt": "second", "conditioning": str(tmp_path / "own.png")},
        {"prompt": "a house by the sea", "name": "sea"},
        {
            "prompt": "a cat",
            "name": "cat",
            "negative": "ugly",
            "seed": 3,
            "adapter_strength": 0.5,
            "resolution": "64x32",
        },
        {"prompt": "plain"},
        {"prompt": "told", "guidance": 2.0},
    ]
    assert (found.libraries, found.conditioning) == ([], [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "not valid YAML"),
        ("{}", "holds no prompts"),
        ("just a text", "holds no prompts"),
        ("a: {prompt: x, strength: 1}", "a: strength: unknown key; did you mean"),
        ("a: {prompt: x, resolution: 64}", "write WIDTHxHEIGHT"),
        ("a: {prompt: x, adapter_strength: 99}", "a: adapter_strength: should be less than"),
    ],
)
def test_what_is_wrong_with_a_library_is_named(tmp_path, text, said):
    (tmp_path / "library.yaml").write_text(text)
    with pytest.raises(BadSpecError, match=said) as refused:
        read_library(tmp_path / "library.yaml")
    assert "training.validation.libraries" in str(refused.value)


def test_an_absent_library_and_too_many_prompts_are_told(tmp_path):
    with pytest.raises(BadSpecError, match=r"libraries: cannot read .*absent\.yaml"):
        read_library(tmp_path / "absent.yaml")
    (tmp_path / "many.json").write_text(json.dumps(["x"] * 256))
    settings = ValidationSpec(prompts=["one"], libraries=["many.json"])
    with pytest.raises(BadSpecError, match="257 prompts in all, but 256 are most"):
        placed(settings, tmp_path)
