import pytest

from st_controller.domain.sweeps import BadSweep, Change, changed, of_grid, of_list


def values(sets):
    return [{change.path: change.value for change in changes} for changes in sets]


def test_a_grid_is_every_combination_and_the_last_path_varies_fastest():
    sets = of_grid({"a.b": [1, 2], "c": ["x", "y"]})
    assert values(sets) == [
        {"a.b": 1, "c": "x"},
        {"a.b": 1, "c": "y"},
        {"a.b": 2, "c": "x"},
        {"a.b": 2, "c": "y"},
    ]
    assert [change.place for change in sets[3]] == ["grid.a.b.1", "grid.c.1"]


def test_a_list_is_taken_as_it_stands():
    sets = of_list([{"a": 1}, {"b": 2, "c": 3}])
    assert values(sets) == [{"a": 1}, {"b": 2, "c": 3}]
    assert sets[1][1].place == "list.1.c"


@pytest.mark.parametrize(
    ("make", "field", "said"),
    [
        (lambda: of_grid({}), "grid", "no path"),
        (lambda: of_grid({"a": [1], "b": []}), "grid.b", "no values"),
        (lambda: of_grid({"a": [1] * 101, "b": [1] * 10}), "grid", "101 x 10 = 1010 jobs"),
        (lambda: of_grid({str(n): [1, 2] for n in range(32)}), "grid", "4294967296 jobs"),
        (lambda: of_list([]), "list", "0 entries"),
        (lambda: of_list([{}] * 1001), "list", "1001 entries"),
    ],
)
def test_what_cannot_be_is_named(make, field, said):
    with pytest.raises(BadSweep) as refused:
        make()
    assert refused.value.field == field
    assert said in refused.value.message


def test_a_thousand_jobs_are_possible():
    assert len(of_grid({"a": list(range(100)), "b": list(range(10))})) == 1000


def test_changes_reach_into_mappings_and_lists_and_leave_the_original():
    document = {"t": {"o": {"lr": 1}, "d": [{"r": 1}, {"r": 2}]}, "keep": [1]}
    before = repr(document)
    found = changed(
        document,
        [Change("t.o.lr", 5, ""), Change("t.d.1.r", 9, ""), Change("new.deep", True, "")],
    )
    assert found == {
        "t": {"o": {"lr": 5}, "d": [{"r": 1}, {"r": 9}]},
        "keep": [1],
        "new": {"deep": True},
    }
    assert repr(document) == before
    assert found["keep"] is document["keep"]


@pytest.mark.parametrize("path", ["a.b", "l.2", "l.-1", "l.x", "m..x", "", "."])
def test_a_path_that_leads_nowhere_is_named_by_its_place(path):
    with pytest.raises(BadSweep) as refused:
        changed({"a": 1, "l": [1, 2], "m": {}}, [Change(path, 0, f"grid.{path}.0")])
    assert refused.value.field == f"grid.{path}.0"
