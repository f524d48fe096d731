import hashlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from st_shared.spec import PixelDitConfig, read_job_file
from st_trainer.families.family import Denoiser
from st_trainer.families.pixel_dit import PixelDitFamily
from st_trainer.weights import write_weights

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def digits():
    spec = importlib.util.spec_from_file_location("digits", ROOT / "examples/digits.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def exported_digits(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets") / "digits"
    assert digits.export(folder) == 0
    return folder


def content(folder):
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def test_every_scan_is_exported_without_loss(digits, exported_digits):
    scans = load_digits()
    assert len(list(exported_digits.glob("*.png"))) == digits.SCANS == len(scans.images)
    for index in (0, 1000, 1796):
        with Image.open(exported_digits / f"{index:04d}.png") as image:
            restored = np.asarray(image) / 255 * 16
        np.testing.assert_allclose(restored, scans.images[index], atol=0.04)
        caption = (exported_digits / f"{index:04d}.txt").read_text().strip()
        assert caption == f"a handwritten {digits.WORDS[scans.target[index]]}"


def test_exporting_again_changes_nothing_and_elsewhere_gives_the_same(
    digits, exported_digits, tmp_path
):
    before = content(exported_digits)
    assert digits.export(exported_digits) == 0
    assert content(exported_digits) == before
    assert digits.export(tmp_path / "other") == 0
    assert content(tmp_path / "other") == before


def test_a_folder_with_other_files_is_left_alone(digits, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    assert digits.export(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(("right", "code"), [(10, 0), (9, 0), (8, 1)])
def test_the_check_fails_below_nine_in_ten(digits, capsys, right, code):
    asked = list(range(10))
    read = asked[:right] + [0] * (10 - right)
    assert digits.report(asked, read, as_json=True) == code
    found = json.loads(capsys.readouterr().out)
    assert (found["matched"], found["ok"]) == (right, code == 0)


def test_a_model_that_has_learnt_nothing_fails_the_check(digits, tmp_path, capsys):
    family, config = PixelDitFamily(), PixelDitConfig(width=16, depth=1, heads=2)
    assets = {"vocabulary": ["handwritten"]}
    path = tmp_path / "weights.safetensors"
    write_weights(path, Denoiser(family, config, assets, family.build(config, assets)), step=0)
    assert digits.check(path, count=50, seed=1, as_json=True) == 1
    assert json.loads(capsys.readouterr().out)["share"] < 0.5


def test_weights_that_cannot_be_checked_are_told_in_a_sentence(
    digits, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["digits.py", "check", str(tmp_path / "none.safetensors")])
    assert digits.main() == 2
    assert "cannot load weights from" in capsys.readouterr().err


def test_the_prompts_of_the_job_file_are_captions_of_the_scans(digits):
    job = read_job_file(ROOT / "examples/digits.yaml")
    assert [each.prompt for each in job.training.validation.prompts] == [
        digits.caption_of(digit) for digit in range(10)
    ]
