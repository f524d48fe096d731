"""How large a specification may be."""

import json

import pytest

from st_controller.errors import InvalidRequest
from st_controller.services import drafts
from st_controller.services.drafts import MAX_SPEC_BYTES


def of_size(size: int) -> dict[str, object]:
    """A job file that has so many bytes as JSON without white space."""
    options = {"text": ""}
    training = {
        "model": {"family": "pixel_dit"},
        "datasets": [{"path": "p"}],
        "steps": 1,
        "trackers": [{"kind": "custom", "module": "m", "options": options}],
    }
    document = {"name": "n", "training": training}
    options["text"] = "x" * (size - len(json.dumps(document, separators=(",", ":"))))
    return document


def test_a_mebibyte_is_the_most() -> None:
    assert MAX_SPEC_BYTES == 2**20
    assert len(drafts.read(of_size(MAX_SPEC_BYTES)).text) == MAX_SPEC_BYTES


@pytest.mark.parametrize("place", ["", "jobs.3."])
def test_one_byte_more_is_refused_and_the_section_that_takes_it_named(place: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        drafts.read_all([of_size(MAX_SPEC_BYTES + 1)], [place])
    (error,) = refused.value.errors
    assert error.field == f"{place}training"
    assert "1 MiB is most" in error.message
