"""The smallest dataset that can be trained on."""

from pathlib import Path

from PIL import Image


def make_shades(folder: Path) -> Path:
    """Seven tiny pictures with captions, in a new folder."""
    folder.mkdir()
    for index in range(7):
        Image.new("L", (4, 4), 30 * index).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"shade {index % 2}")
    return folder
