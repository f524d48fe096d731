import hashlib

import pytest
import torch
from safetensors.torch import save_file

from st_shared.spec import ModelSpec, PixelDitConfig
from st_trainer.errors import BadSpecError
from st_trainer.families.family import Denoiser
from st_trainer.families.pixel_dit import PixelDitFamily
from st_trainer.weights import load_base, load_denoiser, write_weights

CONFIG = PixelDitConfig(image_size=4, width=16, depth=1, heads=2, caption_length=2)


@pytest.fixture
def weights_file(tmp_path):
    family, assets = PixelDitFamily(), {"vocabulary": ["café", "cat"]}
    torch.manual_seed(3)
    denoiser = Denoiser(family, CONFIG, assets, family.build(CONFIG, assets))
    path = tmp_path / "weights.safetensors"
    write_weights(path, denoiser, step=7)
    return path, denoiser


def test_weights_load_by_themselves(weights_file):
    path, denoiser = weights_file
    for place in (path, path.parent):
        loaded = load_denoiser(place)
        assert (loaded.config, loaded.assets) == (CONFIG, denoiser.assets)
        for name, tensor in denoiser.module.state_dict().items():
            assert torch.equal(loaded.module.state_dict()[name], tensor)
    assert [file.name for file in path.parent.iterdir()] == ["weights.safetensors"]


def test_a_file_that_holds_no_model_of_ours_is_refused(tmp_path, weights_file):
    path, _ = weights_file
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": torch.zeros(2)}, foreign)
    with pytest.raises(BadSpecError, match="does not hold a model that st-train wrote"):
        load_denoiser(foreign)
    foreign.write_bytes(path.read_bytes()[:500])
    with pytest.raises(BadSpecError, match="cannot load weights"):
        load_denoiser(foreign)
    with pytest.raises(BadSpecError, match="cannot load weights"):
        load_denoiser(tmp_path / "missing.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "nowhere.safetensors"}, r"training\.model\.base: no file nowhere"),
        ({"base_sha256": "0" * 64}, r"training\.model\.base_sha256: .* another checksum"),
        ({"config": {"width": 48}}, r"training\.model\.config\.width: 48 .* the base has 16"),
    ],
)
def test_a_base_that_is_not_what_the_specification_says_is_refused(weights_file, changes, message):
    path, _ = weights_file
    with pytest.raises(BadSpecError, match=message):
        load_base(ModelSpec(**({"family": "pixel_dit", "base": str(path)} | changes)))


def test_a_base_lends_the_options_that_are_left_out(weights_file):
    path, _ = weights_file
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    spec = ModelSpec(
        family="pixel_dit", base=str(path), base_sha256=sha256, config={"image_size": 4}
    )
    assert load_base(spec).config == CONFIG
