"""What workers send compressed is opened within its bound, and refused for a named reason."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_controller.api.compressed_body import opened_gzip
from st_shared.protocol.problems import Problem


@given(st.binary(max_size=300), st.integers(0, 300))
def test_a_body_is_opened_exactly_when_it_fits(body, most):
    opened = opened_gzip(gzip.compress(body), most)
    assert opened == body if len(body) <= most else opened.code == "body_too_large"


@pytest.mark.parametrize(
    "packed",
    [b"", b"{}", gzip.compress(b"x")[:-1], gzip.compress(b"x") + b"y", zlib.compress(b"x")],
    ids=["empty", "plain", "cut", "longer", "zlib"],
)
def test_a_damaged_body_is_refused(packed):
    refused = opened_gzip(packed, 100)
    assert isinstance(refused, Problem)
    assert (refused.status, refused.code) == (400, "bad_coding")


def test_a_bomb_is_refused_before_it_is_open():
    refused = opened_gzip(gzip.compress(b"0" * 50_000_000), 1000)
    assert (refused.status, refused.code) == (413, "body_too_large")
