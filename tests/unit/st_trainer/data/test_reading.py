import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from st_shared.spec import DatasetSpec
from st_trainer.data.caption_text import MAX_CAPTION_BYTES
from st_trainer.data.facts import SampleFacts
from st_trainer.data.images import Images
from st_trainer.data.reading import read_datasets
from st_trainer.data.sampler import ShuffledSampler
from st_trainer.errors import BadDataError


def put(folder: Path, name: str, caption: bytes | None = b"a cat", image=None) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("L", (4, 4), 51)).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_bytes(caption)
    return path


def read(*folders: Path, channels=1, kept_bytes=1 << 20, repeats=1):
    datasets = [DatasetSpec(path=str(folder), repeats=repeats) for folder in folders]
    return read_datasets(datasets, folders, Images(channels, 4, 4), kept_bytes=kept_bytes)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its few bytes do not hold."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_samples_come_sorted_with_captions_on_one_line(tmp_path):
    put(tmp_path, "b/2.png", b"two\nlines \n")
    put(tmp_path, "a.webp", b"\xef\xbb\xbfwith mark")
    put(tmp_path, "c.JPG", b"third")
    put(tmp_path, ".hidden/d.png")
    (tmp_path / "notes.md").write_text("no image")
    samples = read(tmp_path).samples
    assert samples.names([0, 1, 2]) == ["a.webp", "b/2.png", "c.JPG"]
    assert list(samples.captions) == ["with mark", "two lines", "third"]


def test_pixels_run_from_minus_1_to_1(tmp_path):
    put(tmp_path, "a.png", image=Image.fromarray(np.array([[0, 51, 204, 255]] * 4, np.uint8)))
    pixels = read(tmp_path).samples.values([0, 0])
    assert pixels.shape == (2, 1, 4, 4)
    torch.testing.assert_close(pixels[1, 0, 2], torch.tensor([-1.0, -0.6, 0.6, 1.0]))


def test_what_cannot_be_used_is_skipped_with_its_reason(tmp_path):
    put(tmp_path, "good.png")
    put(tmp_path, "no-caption.png", None)
    put(tmp_path, "empty-caption.png", b" \n")
    put(tmp_path, "latin.png", b"caf\xe9")
    put(tmp_path, "long.png", b"x" * (MAX_CAPTION_BYTES + 1))
    put(tmp_path, "noise.png").write_bytes(b"not an image")
    put(tmp_path, "empty.png").write_bytes(b"")
    whole = put(tmp_path, "half.png", image=Image.effect_noise((64, 64), 50)).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    put(tmp_path, "bomb.png").write_bytes(png_claiming(60_000, 60_000))
    put(tmp_path, "large.png").write_bytes(png_claiming(9_000, 9_000))
    put(tmp_path, "larger.png").write_bytes(png_claiming(10_000, 10_000))
    reading = read(tmp_path)
    assert len(reading.samples) == 1
    reasons = {remark.name: remark.text for remark in reading.skipped}
    assert list(reasons) == sorted(reasons)
    assert reasons.pop("half.png").startswith("damaged image")
    assert reasons == {
        "bomb.png": "more than 64,000,000 pixels",
        "empty-caption.png": "empty-caption.txt is empty",
        "empty.png": "not a PNG, JPEG or WebP image",
        "large.png": "more than 64,000,000 pixels",
        "larger.png": "more than 64,000,000 pixels",
        "latin.png": "latin.txt is not UTF-8 text",
        "long.png": f"long.txt is longer than {MAX_CAPTION_BYTES} bytes",
        "no-caption.png": "no caption: no-caption.txt is missing",
        "noise.png": "not a PNG, JPEG or WebP image",
    }


def test_what_a_camera_wrote_wrong_leaves_out_its_picture_alone(tmp_path):
    """Pillow raises ``struct.error`` as it turns a picture whose EXIF has a tag of another type."""
    put(tmp_path, "a.png")
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "hello"
    Image.new("RGB", (4, 4)).save(tmp_path / "b.jpg", exif=exif)
    whole = (tmp_path / "b.jpg").read_bytes()
    assert b"\x01\x0e\x00\x02" in whole
    (tmp_path / "b.jpg").write_bytes(whole.replace(b"\x01\x0e\x00\x02", b"\x01\x2d\x00\x02"))
    (tmp_path / "b.txt").write_text("turned")
    reading = read(tmp_path)
    assert [remark.name for remark in reading.skipped] == ["b.jpg"]
    assert "damaged image" in reading.skipped[0].text


def test_nothing_usable_is_bad_data_and_says_why(tmp_path):
    with pytest.raises(BadDataError, match="no PNG, JPEG or WebP image below"):
        read(tmp_path)
    put(tmp_path, "a.png", None)
    with pytest.raises(BadDataError, match=r"none of the 1 images .* a\.png: no caption"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("image", "channels", "changes", "corner"),
    [
        (Image.new("L", (4, 4), 90), 1, [], [90]),
        (Image.new("RGB", (4, 4), (10, 20, 30)), 3, [], [10, 20, 30]),
        (Image.new("L", (8, 8), 90), 1, ["resized from 8x8"], [90]),
        (Image.new("RGB", (4, 4), (90, 90, 90)), 1, ["converted from RGB to grey"], [90]),
        (Image.new("L", (4, 4), 90), 3, ["converted from L to RGB"], [90, 90, 90]),
        (Image.new("RGBA", (4, 4), (0, 0, 0, 0)), 3, ["converted from RGBA to RGB"], [255] * 3),
        (
            Image.fromarray(np.full((4, 4), 257 * 70, np.uint16)),
            1,
            ["converted from I;16 to grey"],
            [70],
        ),
    ],
)
def test_other_sizes_and_modes_are_made_to_fit_and_told(tmp_path, image, channels, changes, corner):
    put(tmp_path, "a.png", image=image)
    reading = read(tmp_path, channels=channels)
    assert [remark.text for remark in reading.changed] == changes
    values = ((reading.samples.values([0])[0, :, 0, 0] + 1) * 127.5).round()
    assert values.tolist() == corner


def test_images_beyond_the_memory_limit_are_read_again_and_are_the_same(tmp_path):
    for index in range(3):
        put(tmp_path, f"{index}.png", image=Image.new("L", (4, 4), index))
    kept, read_again = read(tmp_path).samples, read(tmp_path, kept_bytes=16).samples
    assert kept.sha256 == read_again.sha256
    assert torch.equal(kept.values([2, 0, 1]), read_again.values([2, 0, 1]))
    (tmp_path / "2.png").write_bytes(b"gone bad")
    with pytest.raises(BadDataError, match=r"2\.png changed during the run"):
        read_again.values([2])


def test_the_checksum_follows_captions_pixels_and_names_but_not_the_place(tmp_path):
    put(tmp_path / "x", "a.png")
    put(tmp_path / "y", "a.png")
    before = read(tmp_path / "x").samples.sha256
    assert read(tmp_path / "y").samples.sha256 == before
    (tmp_path / "y" / "a.txt").write_bytes(b"a dog")
    assert read(tmp_path / "y").samples.sha256 != before


def test_several_folders_are_mixed_and_repeats_are_kept(tmp_path):
    put(tmp_path / "x", "a.png", b"one")
    put(tmp_path / "y", "a.png", b"two")
    samples = read(tmp_path / "x", tmp_path / "y", repeats=3).samples
    assert list(samples.captions) == ["one", "two"]
    assert samples.repeats.tolist() == [3, 3]


def stripes(width: int, height: int) -> Image.Image:
    """Columns from 0 up to ``width - 1`` grey."""
    return Image.fromarray(np.tile(np.arange(width, dtype=np.uint8), (height, 1)))


BUCKETS = ((4, 4), (2, 8), (8, 2))


def read_bucketed(folder, mask_suffix=None, conditioning=None, **options):
    datasets = [DatasetSpec(path=str(folder), mask_suffix=mask_suffix, conditioning=conditioning)]
    return read_datasets(datasets, [folder], Images(1, 4, 4, BUCKETS), **options)


@pytest.mark.parametrize("kept_bytes", [0, 1 << 20])
def test_images_of_other_aspects_keep_them_and_are_cut_about_the_centre(tmp_path, kept_bytes):
    put(tmp_path, "a.png", image=stripes(4, 4))
    put(tmp_path, "b.png", image=stripes(8, 2))
    put(tmp_path, "c.png", image=stripes(12, 2))
    put(tmp_path, "d.png", image=stripes(2, 8))
    samples = read_bucketed(tmp_path, kept_bytes=kept_bytes).samples
    assert samples.shapes(range(4)) == [(1, 4, 4), (1, 2, 8), (1, 2, 8), (1, 8, 2)]
    wide = ((samples.values([1, 2])[:, 0, 0] + 1) * 127.5).round().int()
    assert wide.tolist() == [list(range(8)), list(range(2, 10))]
    assert samples.values([3]).shape == (1, 1, 8, 2)
    assert samples.facts([1, 2]) == [
        SampleFacts.whole(2, 8),
        SampleFacts((2, 12), (0, 2), (2, 8)),
    ]


def test_a_mask_is_cut_as_its_image_is(tmp_path):
    put(tmp_path, "a.png", image=stripes(12, 2))
    mask = np.zeros((2, 12), np.uint8)
    mask[:, 2:6] = 255
    Image.fromarray(mask).save(tmp_path / "a.mask.png")
    samples = read_bucketed(tmp_path, mask_suffix=".mask.png").samples
    assert samples.masks([0])[0, 0].tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]] * 2


def test_the_checksum_follows_the_mask(tmp_path):
    found = set()
    for shade in (0, 1, 255):
        put(tmp_path, "a.png", image=stripes(4, 4))
        Image.new("L", (4, 4), shade).save(tmp_path / "a.mask.png")
        found.add(read_bucketed(tmp_path, mask_suffix=".mask.png").samples.sha256)
    assert len(found) == 3


def test_masks_are_read_as_what_the_dataset_says_they_are(tmp_path):
    put(tmp_path, "a.png", image=stripes(4, 4))
    Image.new("L", (4, 4), 51).save(tmp_path / "a.mask.png")
    found = []
    for kind in ("grey", "segmentation"):
        dataset = DatasetSpec(path=str(tmp_path), mask_suffix=".mask.png", mask_kind=kind)
        samples = read_datasets([dataset], [tmp_path], Images(1, 4, 4)).samples
        found.append(samples.masks([0]).unique().tolist())
    assert found == [pytest.approx([0.2]), [1.0]]


def test_a_conditioning_picture_is_cut_as_its_image_is(tmp_path):
    put(tmp_path, "a.png", image=stripes(12, 2))
    (tmp_path / "edges").mkdir()
    stripes(12, 2).save(tmp_path / "edges/a.png")
    samples = read_bucketed(tmp_path, conditioning="edges").samples
    assert len(samples) == 1
    found = (samples.conditioning([0])[0] * 255).round().int()
    assert found.tolist() == [[list(range(2, 10))] * 2] * 3


def test_an_image_that_gets_another_aspect_during_the_run_is_named(tmp_path):
    put(tmp_path, "a.png", image=stripes(8, 2))
    samples = read_bucketed(tmp_path, kept_bytes=0).samples
    stripes(2, 8).save(tmp_path / "a.png")
    with pytest.raises(BadDataError, match=r"a\.png changed during the run: it has another aspect"):
        samples.values([0])


@pytest.mark.parametrize(("batches", "unseen"), [(6, 1), (10, 0)])
def test_samples_whose_bucket_fills_no_batch_are_foreseen(tmp_path, batches, unseen):
    for number in range(7):
        put(tmp_path, f"{number}.png")
    put(tmp_path, "wide.png", image=Image.new("L", (8, 2)))
    datasets = [DatasetSpec(path=str(tmp_path))]
    samples = read_datasets(datasets, [tmp_path], Images(1, 4, 4, BUCKETS)).samples
    assert len(samples.bucket_counts) == 2
    sampler = ShuffledSampler(samples.repeats, 0, buckets=samples.buckets)
    seen = {index for _ in range(batches) for index in sampler.take(4)}
    assert samples.never_seen(batches * 4, 4) == 8 - len(seen) == unseen


def test_square_images_are_read_as_without_buckets(tmp_path):
    for index in range(3):
        put(tmp_path, f"{index}.png", image=Image.effect_noise((5, 5), 90))
    plain, bucketed = read(tmp_path).samples, read_bucketed(tmp_path).samples
    assert plain.sha256 == bucketed.sha256
    assert torch.equal(plain.values([0, 1, 2]), bucketed.values([0, 1, 2]))


def test_the_checksum_follows_the_shape(tmp_path):
    put(tmp_path / "x", "a.png", image=Image.new("L", (8, 2), 9))
    put(tmp_path / "y", "a.png", image=Image.new("L", (2, 8), 9))
    found = [read_bucketed(tmp_path / name).samples.sha256 for name in "xy"]
    assert found[0] != found[1]


def test_the_checksum_follows_the_size_in_the_file(tmp_path):
    put(tmp_path / "x", "a.png", image=Image.new("L", (4, 4), 9))
    put(tmp_path / "y", "a.png", image=Image.new("L", (8, 8), 9))
    found = [read(tmp_path / name).samples for name in "xy"]
    assert torch.equal(found[0].values([0]), found[1].values([0]))
    assert found[0].sha256 != found[1].sha256


def cut(folder, style):
    dataset = DatasetSpec(path=str(folder), mask_suffix=".mask.png", conditioning=".edges.png")
    medium = Images(1, 4, 4, crop=style)
    return read_datasets([dataset], [folder], medium, kept_bytes=0).samples


@pytest.mark.parametrize("style", ["center", "corner", "random"])
def test_what_lies_beside_is_cut_where_its_image_is(tmp_path, style):
    for index in range(8):
        put(tmp_path, f"{index}.png", image=stripes(40, 4))
        for end in ("mask", "edges"):
            stripes(40, 4).save(tmp_path / f"{index}.{end}.png")
    samples = cut(tmp_path, style)
    starts = ((samples.values(range(8))[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
    assert starts == [facts.crop[1] for facts in samples.facts(range(8))]
    assert (samples.masks(range(8))[:, 0, 0, 0] * 255).round().int().tolist() == starts
    assert (samples.conditioning(range(8))[:, 0, 0, 0] * 255).round().int().tolist() == starts
    expected = {"center": {18}, "corner": {0}}.get(style)
    assert set(starts) == expected if expected else len(set(starts)) > 4
    assert torch.equal(cut(tmp_path, style).values(range(8)), samples.values(range(8)))


def test_what_caches_go_by_follows_the_cut_but_neither_name_nor_folder(tmp_path):
    def contents(folder, name, style):
        noise = np.random.default_rng(0).integers(0, 256, (4, 12), np.uint8)
        put(folder, name, image=Image.fromarray(noise))
        put(folder / "edges", name, None, image=Image.fromarray(noise))
        dataset = DatasetSpec(path=str(folder), conditioning="edges")
        medium = Images(1, 4, 4, BUCKETS[:1], style)
        (folder / "z.png").touch()  # no sample
        samples = read_datasets([dataset], [folder], medium).samples
        found = samples.contents([0]), samples.conditioning_contents([0])
        assert found == tuple(
            list(samples.every_content(column)) for column in ("content", "conditioning")
        )
        return found

    centre = contents(tmp_path / "a", "x.png", "center")
    assert centre == contents(tmp_path / "b", "y.png", "center")
    corner = contents(tmp_path / "a", "x.png", "corner")
    assert all(one != other for one, other in zip(centre, corner, strict=True))


def test_a_strict_conditioning_picture_has_the_aspect_of_its_image(tmp_path):
    for index, size in enumerate([(12, 8), (24, 16), (12, 12)]):
        put(tmp_path, f"{index}.png", image=Image.new("L", (12, 8)))
        Image.new("L", size).save(tmp_path / f"{index}.e.png")
    for fit, count in (("loose", 3), ("strict", 2)):
        dataset = DatasetSpec(path=str(tmp_path), conditioning=".e.png", conditioning_fit=fit)
        reading = read_datasets([dataset], [tmp_path], Images(1, 4, 4))
        assert len(reading.samples) == count
    assert [each.text for each in reading.skipped] == [
        "the conditioning picture has 12x12, which is not the aspect of 12x8"
    ]


def test_what_a_dataset_does_not_want_is_told(tmp_path):
    put(tmp_path, "a.png", image=Image.new("L", (4, 4)))
    put(tmp_path, "b.png", image=Image.new("L", (2, 2)))
    dataset = DatasetSpec(path=str(tmp_path), only={"max_upscale": 1.5})
    reading = read_datasets([dataset], [tmp_path], Images(1, 4, 4))
    assert [each.name for each in reading.skipped] == ["b.png"]
