"""Pictures that samples are made out of: strict are cut alike, loose keep their aspect."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from st_shared.spec.dataset import DatasetSpec
from st_trainer.data.bucketing import described
from st_trainer.data.conditioning import check_conditioning
from st_trainer.data.content import Content
from st_trainer.data.images import Images
from st_trainer.data.medium import Bucket, DamagedSampleError, UnreadableSampleError
from st_trainer.data.reading import read_datasets
from st_trainer.data.sampler import ShuffledSampler

MEDIUM = Images(3, 4, 4, ((4, 4), (2, 8)), references=((8, 8), (4, 12), (12, 4), (4, 4)))
NOISE = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)


def put(folder, name, reference, size=(4, 4)):
    """A sample of ``size`` (width, height), and noise of the size ``reference`` beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (9, 90, 200)).save(folder / f"{name}.png")
    Image.fromarray(NOISE[: reference[1], : reference[0]]).save(folder / f"{name}.before.png")
    (folder / f"{name}.txt").write_text(name)


def read(folder, fit="loose", medium=MEDIUM, **options):
    dataset = DatasetSpec(path=str(folder), conditioning=".before.png", conditioning_fit=fit)
    return read_datasets([dataset], [folder], medium, **options)


@pytest.fixture
def aspects(tmp_path):
    """Twelve samples of two sizes with references of three."""
    for number in range(12):
        reference = [(12, 4), (4, 12), (8, 8)][number % 3]
        put(tmp_path / "samples", f"{number:02d}", reference, [(4, 4), (8, 2)][number % 2])
    return tmp_path / "samples"


def test_loose_ones_keep_their_aspect(aspects):
    samples = read(aspects).samples
    for number, (height, width) in enumerate([(4, 12), (12, 4), (8, 8)]):
        found = (samples.conditioning([number, number + 6]) * 255).round().byte()
        expected = torch.from_numpy(NOISE[:height, :width].transpose(2, 0, 1).copy())
        assert torch.equal(found, expected.expand(2, -1, -1, -1))
    assert samples.shapes([0, 1]) == [(3, 4, 4), (3, 2, 8)]


def test_a_batch_has_samples_and_references_of_one_size_each(aspects):
    samples = read(aspects).samples
    square, wide = (3, 4, 4), (3, 2, 8)
    sizes = ((4, 12), (12, 4), (8, 8))
    assert samples.bucket_counts == {
        Bucket(shape, (size,)): 2 for shape in (square, wide) for size in sizes
    }
    sampler = ShuffledSampler(samples.repeats, 0, buckets=samples.buckets)
    seen = set()
    for _ in range(6):
        batch = sampler.take(2)
        seen |= set(batch)
        assert len(samples.conditioning(batch)) == len(samples.values(batch)) == 2
    assert seen == set(range(12))


def test_the_buckets_are_told_with_the_sizes_of_their_references(tmp_path):
    for number, reference in enumerate([(12, 4), (12, 4), (4, 4)]):
        put(tmp_path, str(number), reference)
    medium = replace(MEDIUM, references=((4, 4), (4, 12)))
    told = described(read(tmp_path, medium=medium).samples.bucket_counts, medium)
    assert told == "2 buckets, width x height: images; 4x4 with 12x4: 2, 4x4: 1"


def test_one_as_large_as_its_sample_shares_the_bucket_of_strict_ones(tmp_path):
    put(tmp_path / "a", "a", (4, 4))
    put(tmp_path / "b", "b", (8, 8))
    medium = replace(MEDIUM, references=((4, 4), (4, 12)))
    datasets = [
        DatasetSpec(path=name, conditioning=".before.png", conditioning_fit=fit)
        for name, fit in (("a", "loose"), ("b", "strict"))
    ]
    samples = read_datasets(datasets, [tmp_path / "a", tmp_path / "b"], medium).samples
    assert samples.bucket_counts == {Bucket((3, 4, 4)): 2}
    assert samples.conditioning([0, 1]).shape == (2, 3, 4, 4)


def test_strict_ones_are_cut_as_their_samples_or_leave_them_out(tmp_path):
    for name, reference in {"a": (12, 3), "b": (12, 12)}.items():
        put(tmp_path, name, reference, (8, 2))
    reading = read(tmp_path, "strict")
    assert [each.name for each in reading.skipped] == ["b.png"]
    assert "12x12, which is not the aspect of 8x2" in reading.skipped[0].text
    assert reading.samples.bucket_counts == {Bucket((3, 2, 8)): 1}
    assert reading.samples.conditioning([0]).shape == (1, 3, 2, 8)


def test_an_index_that_is_found_again_has_the_same_buckets(aspects, tmp_path):
    first, again = (read(aspects, root=tmp_path / "index").samples for _ in range(2))
    assert first.bucket_counts == again.bucket_counts
    assert first.sha256 == again.sha256
    assert torch.equal(first.conditioning([3, 9]), again.conditioning([3, 9]))


def test_an_index_that_is_taken_over_keeps_the_buckets_of_what_has_not_changed(aspects, tmp_path):
    before = read(aspects, root=tmp_path / "index").samples
    Image.fromarray(NOISE[:8, :8]).save(aspects / "00.before.png")
    after = read(aspects, root=tmp_path / "index").samples
    assert after.sha256 != before.sha256
    counts = before.bucket_counts
    counts.subtract([Bucket((3, 4, 4), ((4, 12),))])
    counts.update([Bucket((3, 4, 4), ((8, 8),))])
    assert after.bucket_counts == counts


def test_what_caches_go_by_follows_content_and_size_of_the_reference_alone(tmp_path):
    put(tmp_path / "a", "a", (12, 4))
    put(tmp_path / "b", "b", (12, 4), (8, 2))
    [key] = read(tmp_path / "a").samples.conditioning_contents([0])
    assert [key] == read(tmp_path / "b").samples.conditioning_contents([0])
    larger = replace(MEDIUM, references=((8, 24),))
    smaller = replace(MEDIUM, references=((4, 4),))
    for other in (larger, smaller):
        assert [key] != read(tmp_path / "a", medium=other).samples.conditioning_contents([0])
    changed = NOISE[:4, :12].copy()
    changed[0, 0, 0] ^= 1
    Image.fromarray(changed).save(tmp_path / "a/a.before.png")
    assert [key] != read(tmp_path / "a").samples.conditioning_contents([0])


def test_the_checksum_follows_the_size_of_references(tmp_path):
    put(tmp_path, "a", (12, 4))
    found = [
        read(tmp_path, medium=replace(MEDIUM, references=sizes)).samples.sha256
        for sizes in (((4, 12),), ((8, 24),), ((4, 4),))
    ]
    assert len(set(found)) == 3


@pytest.mark.parametrize("content", [None, b"broken"])
def test_a_sample_whose_reference_cannot_be_read_is_left_out(tmp_path, content):
    for name in "ab":
        put(tmp_path, name, (12, 4))
    path = tmp_path / "b.before.png"
    path.unlink()
    if content:
        path.write_bytes(content)
    reading = read(tmp_path)
    assert len(reading.samples) == 1
    assert [each.name for each in reading.skipped] == ["b.png"]
    assert "conditioning picture" in reading.skipped[0].text
    with pytest.raises(UnreadableSampleError) as found:
        check_conditioning(Content.of_file(path), [(4, 4)])
    assert not isinstance(found.value, DamagedSampleError)  # or its sample might be deleted


@pytest.mark.parametrize(
    ("size", "kept"),
    [((120, 81), 1), ((60, 40), 1), ((40, 27), 1), ((120, 82), 0), ((120, 78), 0), ((80, 120), 0)],
)
def test_strict_ones_may_differ_by_the_rounding_of_a_pixel_alone(tmp_path, size, kept):
    put(tmp_path, "a", (12, 8), (120, 80))
    put(tmp_path, "b", (12, 8), (12, 8))
    Image.new("RGB", size).save(tmp_path / "a.before.png")
    assert len(read(tmp_path, "strict").samples) == 1 + kept


def test_references_of_another_folder_are_others_though_their_files_look_alike(tmp_path):
    folder, found = tmp_path / "samples", []
    put(folder, "a", (4, 4))
    (folder / "a.before.png").unlink()
    for place, shade in (("one", 1), ("two", 2)):
        path = folder / place / "a.png"
        path.parent.mkdir()
        Image.new("RGB", (4, 4), (shade, 0, 0)).save(path)
        os.utime(path, (1e9, 1e9))
        dataset = DatasetSpec(path=str(folder), conditioning=place)
        samples = read_datasets([dataset], [folder], MEDIUM, root=tmp_path / "index").samples
        found.append(samples.conditioning_contents([0]))
    assert (folder / "one/a.png").stat().st_size == path.stat().st_size
    assert found[0] != found[1]


def test_references_in_a_folder_among_the_samples_are_no_samples(tmp_path):
    """Whose captions need no file, so that nothing else would tell them apart."""
    for folder in (tmp_path, tmp_path / "before"):
        put(folder, "a", (4, 4))
        (folder / "a.before.png").unlink()
    captions = {"source": "instance", "instance_prompt": "make it night"}
    dataset = DatasetSpec(path=str(tmp_path), conditioning="before", captions=captions)
    reading = read_datasets([dataset], [tmp_path], MEDIUM)
    assert reading.samples.names(range(len(reading.samples))) == ["a.png"]


def test_strict_and_loose_have_an_index_each(tmp_path):
    for name, reference in {"a": (12, 12), "b": (12, 3)}.items():
        put(tmp_path / "samples", name, reference, (8, 2))
    for fit, count in (("loose", 2), ("strict", 1), ("loose", 2)):
        assert len(read(tmp_path / "samples", fit, root=tmp_path / "index").samples) == count
