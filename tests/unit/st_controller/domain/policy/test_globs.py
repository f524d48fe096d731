"""What globs have in common, held to all short names over a small alphabet."""

from fnmatch import fnmatchcase
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from st_controller.domain.policy.globs import covers, matches, may_meet

LETTERS = "ab"
NAMES = ["".join(name) for size in range(7) for name in product(LETTERS, repeat=size)]
"""As long as what two globs of four signs may need: `aaa*` and `*bbb` meet in six letters."""
plain = st.text("ab*?", min_size=1, max_size=4)
classed = st.lists(st.sampled_from(["a", "b", "*", "?", "[ab]", "[!a]"]), min_size=1, max_size=4)
globs = st.one_of(plain, classed.map("".join))


def names(glob):
    return {name for name in NAMES if fnmatchcase(name, glob)}


@given(plain, plain)
def test_two_globs_meet_exactly_where_a_name_matches_both(one, other):
    assert may_meet(one, other) == bool(names(one) & names(other))


@given(globs, globs)
def test_globs_that_share_a_name_are_never_said_to_share_none(one, other):
    assert may_meet(one, other) or not names(one) & names(other)


@given(globs, globs)
def test_what_is_covered_lies_inside(wide, narrow):
    if covers(wide, narrow):
        assert names(narrow) <= names(wide)


def test_usual_cases():
    assert covers("h100*", "h100-sxm")
    assert covers("h*", "h100*")
    assert not covers("h100*", "h*")
    assert may_meet("*-80gb", "h100*")
    assert not may_meet("a100*", "h100*")
    assert matches("H100*", "h100-SXM")
