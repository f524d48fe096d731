import pytest
import torch
from fixtures.tiny import TINY
from torch import nn

from st_shared.spec import FAMILIES
from st_trainer.families.family import FromScratch
from st_trainer.families.pretrained import Pretrained
from st_trainer.families.registry import REGISTRY


def test_the_registry_holds_the_families_of_the_catalogue():
    assert set(REGISTRY) == set(FAMILIES)
    assert all(code.name == name for name, code in REGISTRY.items())


SCRATCH = sorted(name for name, code in REGISTRY.items() if isinstance(code, FromScratch))


def test_a_family_that_needs_a_base_has_a_tiny_one_for_the_contract():
    pretrained = {name for name, code in REGISTRY.items() if isinstance(code, Pretrained)}
    assert pretrained == set(TINY) == {name for name in FAMILIES if FAMILIES[name].needs_base}


@pytest.mark.parametrize("name", SCRATCH)
def test_a_family_keeps_its_contract_with_its_defaults(name):
    code, config = REGISTRY[name], FAMILIES[name].config()
    assets = code.assets(config, ["a cat", "a dog"])
    module = code.build(config, assets)
    condition = code.encode(config, assets, ["a cat", "", "a yak"])
    noisy = torch.randn(3, *code.sample_shape(config))
    predicted = code.predict(module, noisy, torch.tensor([0.0, 0.5, 1.0]), condition)
    assert isinstance(module, nn.Module)
    assert predicted.shape == noisy.shape
    assert torch.isfinite(predicted).all()
    assert code.unknown_words(assets, "a yak") == ["yak"]
