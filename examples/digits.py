"""The handwritten digits of scikit-learn: export them to train on, check what was learnt.

python examples/digits.py export FOLDER          write 1,797 scans with their captions
python examples/digits.py check WEIGHTS          draw digits and have a classifier read them
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from st_shared.spec import ValidationSpec

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SCANS = 1797
DONE = ".complete"
"""Marks a folder that holds every scan."""

REQUIRED_SHARE = 0.9
BRIGHTEST = 16
"""The scans hold values 0 to 16."""


def caption_of(digit: int) -> str:
    """What is written beside each scan of ``digit``."""
    return f"a handwritten {WORDS[digit]}"


def export(folder: Path) -> int:
    """Write the scans to ``folder``, all or none; a folder that is complete stays as it is."""
    if (folder / DONE).exists():
        print(f"{folder} already holds {SCANS} scans")
        return 0
    if folder.exists() and any(folder.iterdir()):
        print(f"{folder} is not empty: give another folder, or empty it", file=sys.stderr)
        return 1
    scans = load_digits()
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    pixels = (scans.images / BRIGHTEST * 255).round().astype("uint8")
    for index, (image, digit) in enumerate(zip(pixels, scans.target, strict=True)):
        Image.fromarray(image).save(aside / f"{index:04d}.png")
        (aside / f"{index:04d}.txt").write_text(f"{caption_of(digit)}\n", encoding="utf-8")
    (aside / DONE).touch()
    aside.replace(folder)
    print(f"{len(pixels)} scans with captions in {folder}")
    return 0


def check(weights: Path, count: int, seed: int, as_json: bool) -> int:
    """Draw ``count`` digits, ten kinds in turn; 1 unless enough of them read as asked."""
    from st_trainer.sampling import draw  # noqa: PLC0415 -- torch, which exporting does not need
    from st_trainer.weights import load_denoiser  # noqa: PLC0415

    asked = [index % len(WORDS) for index in range(count)]
    captions = [caption_of(digit) for digit in asked]
    images = draw(load_denoiser(weights), captions, ValidationSpec(seed=seed))
    scans = load_digits()
    if images[0].numel() != scans.data.shape[1]:
        raise ValueError(f"{weights} draws {tuple(images.shape[1:])}, no digits of 8x8 pixels")
    judge = SVC(gamma=0.001).fit(scans.data, scans.target)
    read = judge.predict(images.flatten(1).numpy() / 255 * BRIGHTEST).tolist()
    return report(asked, read, as_json)


def report(asked: list[int], read: list[int], as_json: bool) -> int:
    """Print how many digits were read as asked; 1 when they are too few."""
    right = sum(a == r for a, r in zip(asked, read, strict=True))
    share = right / len(asked)
    missed: dict[str, Any] = {}
    for wanted, found in zip(asked, read, strict=True):
        if wanted != found:
            missed.setdefault(WORDS[wanted], []).append(WORDS[found])
    enough = share >= REQUIRED_SHARE
    if as_json:
        print(
            json.dumps(
                {
                    "drawn": len(asked),
                    "matched": right,
                    "share": share,
                    "required": REQUIRED_SHARE,
                    "ok": enough,
                    "missed": missed,
                }
            )
        )
    else:
        print(
            f"{right} of {len(asked)} drawn digits match their caption ({share:.0%}); "
            f"required: {REQUIRED_SHARE:.0%}"
        )
        for wanted, found in missed.items():
            print(f"  {wanted} was read as {', '.join(found)}")
    return 0 if enough else 1


def main() -> int:
    """Run the command line; gives the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, dest="command")
    exporting = commands.add_parser("export", help="write the scans with their captions")
    exporting.add_argument("folder", type=Path)
    checking = commands.add_parser("check", help="draw digits and classify them")
    checking.add_argument("weights", type=Path, help="weights.safetensors of a run")
    checking.add_argument("--count", type=int, default=100, help="digits to draw")
    checking.add_argument("--seed", type=int, default=1, help="seed of the noise")
    checking.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    if options.command == "export":
        return export(options.folder)
    if options.count < 1:
        checking.error("--count must be at least 1")
    from st_trainer.errors import TrainerError  # noqa: PLC0415

    try:
        return check(options.weights, options.count, options.seed, options.json)
    except (TrainerError, ValueError) as error:
        print(f"digits.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
