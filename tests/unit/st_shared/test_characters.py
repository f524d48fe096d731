import pytest

from st_shared.characters import check_text, storable, unstorable_texts
from st_shared.spec.reading import SpecProblems, parse_yaml, validate_job


@pytest.mark.parametrize("text", ["", "tab\tand\nbreak", "é 漢 😀", "\x01\x7f\u2028"])
def test_text_that_utf8_has_is_given_back(text):
    assert check_text(text) == text


@pytest.mark.parametrize(("text", "named"), [("a\0b", "U+0000"), ("\ud800", "U+D800")])
def test_text_that_no_database_holds_is_refused_by_name(text, named):
    with pytest.raises(ValueError, match=f"holds the character {named}".replace("+", r"\+")):
        check_text(text)


def test_what_no_database_holds_can_be_replaced():
    assert check_text(storable("a\0b\ud800 é")) == "a\ufffdb\ufffd é"


def test_each_bad_text_is_found_at_its_place():
    document = {"a": ["x", {"b": "\0"}], "c\ud800": 1, "d": {"e": "\udfff"}}
    found = {place for place, _ in unstorable_texts(document)}
    assert found == {"a.1.b", "c\\ud800", "d.e"}


def test_depth_cycles_and_shared_parts_do_not_hold_it_up():
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    shared: list[object] = ["x"]
    for _ in range(64):
        shared = [shared, shared]  # 2**64 texts, were each looked at
    cyclic: list[object] = []
    cyclic.append(cyclic)
    assert list(unstorable_texts([deep, shared, cyclic])) == []


@pytest.mark.parametrize("prompt", ["\0", "\ud800"])
def test_a_job_file_names_the_field_with_the_bad_text(prompt):
    training = {
        "model": {"family": "pixel_dit"},
        "datasets": [{"path": "/data"}],
        "steps": 1,
        "validation": {"prompts": ["fine", prompt]},
    }
    with pytest.raises(SpecProblems) as refused:
        validate_job({"name": "j", "training": training})
    assert [problem.field for problem in refused.value.problems] == [
        "training.validation.prompts.1"
    ]


@pytest.mark.parametrize("text", ["a: 2026-13-45", "[" * 5000])
def test_yaml_that_trips_its_parser_is_a_problem_of_the_file(text):
    with pytest.raises(SpecProblems, match="not valid YAML"):
        parse_yaml(text)


def test_a_document_of_mistakes_is_answered_with_some_of_them():
    with pytest.raises(SpecProblems) as refused:
        validate_job({f"unknown_{number}": 1 for number in range(5000)})
    assert len(refused.value.problems) == 100
