import pytest
from pydantic import ValidationError

from st_shared.spec import TrainingSpec
from st_shared.spec.digest import spec_sha256


def spec(**changes):
    document = {
        "model": {"family": "sd1", "base": "/models/sd1"},
        "datasets": [{"path": "/data"}],
        "cache": {},
    }
    return TrainingSpec.model_validate(document | changes)


SHUFFLED = [{"path": "/data"}, {"path": "/more", "captions": {"shuffle": True}}]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"family": "pixel_dit"}, "cache": {"latents": "before"}},
         "cache.latents means nothing for family pixel_dit, which has no encoders: drop it"),
        ({"cache": {"images": "off"}},
         "cache.images means nothing for family sd1, whose samples go on from no picture: drop it"),
        ({"adapter": {"text_encoder": True}, "cache": {"text": "on_demand"}},
         ("cache.text is on_demand, but adapter.text_encoder changes what captions become in "
         "every step: drop one of them")),
        ({"datasets": SHUFFLED, "cache": {"text": "before"}},
         ("cache.text is before, but datasets.1.captions.shuffle makes another text of a caption "
         "each time it is seen: use on_demand or off")),
        ({"cache": {"endpoint_url": "http://127.0.0.1:9"}},
         "endpoint_url is the server of share: give that, or drop it"),
        ({"cache": {"share": "/folder"}}, "cache.share"),
        ({"cache": {"latents": "sometimes"}}, "'auto', 'before', 'on_demand' or 'off'"),
    ],
)  # fmt: skip
def test_what_cannot_be_cached_is_refused_with_the_mend(changes, said):
    with pytest.raises(ValidationError, match=said.replace(".", r"\.")):
        spec(**changes)


def test_a_run_may_go_on_with_other_caches():
    first = spec_sha256(spec())
    assert spec_sha256(spec(cache={"latents": "off", "share": "s3://a/b", "max_gb": 1})) == first
    assert spec_sha256(spec(cache={"at_once": 2})) != first
    model = {"family": "wan_i2v", "base": "b"}
    first = spec_sha256(spec(model=model))
    assert spec_sha256(spec(model=model, cache={"images": "off"})) == first
