import pytest

from st_shared.objectstore import InvalidKeyError, check_key


@pytest.mark.parametrize("key", ["a", "jobs/job_1/weights.safetensors", "a-b/_c/d.tar", "x" * 255])
def test_a_relative_path_of_plain_parts_is_a_key(key):
    assert check_key(key) == key


@pytest.mark.parametrize(
    "key",
    ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.hidden", "a\\b", "a b", "a\n", "é", "a\0b"],
)
def test_anything_else_is_not(key):
    with pytest.raises(InvalidKeyError):
        check_key(key)


@pytest.mark.parametrize("key", ["x" * 256, "/".join(["abcd"] * 181)])
def test_length_is_bounded(key):
    with pytest.raises(InvalidKeyError):
        check_key(key)
