import shutil

import av
import numpy as np
import pytest
from PIL import Image

from st_trainer.data.content import Content
from st_trainer.data.facts import SampleFacts
from st_trainer.data.medium import UnreadableSampleError
from st_trainer.data.videos import Videos
from st_trainer.recordings import write_video


def read_of(medium, path):
    return medium.read(Content.of_file(path))


@pytest.fixture
def clip(tmp_path):
    """Makes a video of grey frames; frame ``n`` has the grey ``10 n``."""

    def make(name="a.mp4", frames=10, rate=8, height=16, width=32):
        greys = np.full((3, frames, height, width), 0, np.uint8)
        greys += (10 * np.arange(frames, dtype=np.uint8)).reshape(1, -1, 1, 1)
        write_video(tmp_path / name, greys, rate)
        return tmp_path / name

    return make


def shades(values):
    """The number of the frame that each frame shows."""
    return np.round(values.astype(float).mean(axis=(0, 2, 3)) / 10).astype(int).tolist()


@pytest.mark.parametrize(
    ("rate", "frames", "expected"),
    [
        (8, 5, [0, 1, 2, 3, 4]),
        (4, 5, [0, 2, 4, 6, 8]),
        (16, 9, [0, 0, 1, 1, 2, 2, 3, 3, 4]),
        (16, 20, [n // 2 for n in range(20)]),
        (3, 3, [0, 2, 5]),
        (8, 1, [0]),
    ],
)
def test_each_frame_is_the_one_that_is_shown_at_its_time(clip, rate, frames, expected):
    read = read_of(Videos(frames, 16, 32, rate), clip())
    assert (read.values.shape, read.values.dtype) == ((3, frames, 16, 32), np.uint8)
    assert shades(read.values) == expected
    assert read.changes == (() if rate == 8 else ("resampled from 8 frames a second",))


def test_a_video_with_frames_of_uneven_length_keeps_its_pace(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "bgr0"
        for grey, milliseconds in ((10, 500), (20, 900), (50, 1000), (60, 1500)):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), grey, np.uint8), "rgb24")
            frame.pts = milliseconds
            container.mux(stream.encode(frame.reformat(format="bgr0")))
        container.mux(stream.encode())
    assert shades(read_of(Videos(5, 16, 16, 5), path).values) == [1, 1, 2, 5, 5]


def test_frames_are_scaled_and_cropped_in_the_middle(tmp_path):
    frames = np.zeros((3, 5, 32, 96), np.uint8)
    frames[0, :, :, 32:64] = 255
    write_video(tmp_path / "a.mp4", frames, 8)
    read = read_of(Videos(5, 16, 16, 8), tmp_path / "a.mp4")
    assert read.changes == ("resized from 96x32",)
    assert read.facts == SampleFacts((32, 96), (0, 16), (16, 16))
    red, green, _ = read.values[:, 2].astype(int)
    assert red[8, 3:13].min() > 220
    assert green[8, 3:13].max() < 30


def test_the_checksum_is_that_of_the_file(clip, tmp_path):
    path = clip()
    shutil.copy(path, tmp_path / "b.mp4")
    medium = Videos(5, 16, 32, 8)
    assert read_of(medium, path).identity == read_of(medium, tmp_path / "b.mp4").identity
    assert read_of(medium, path).identity != read_of(medium, clip("c.mp4", frames=9)).identity


def test_a_picture_is_a_video_of_one_frame(tmp_path):
    Image.new("RGB", (32, 16), (10, 20, 30)).save(tmp_path / "a.png")
    medium = Videos(1, 16, 32, 8)
    assert {".png", ".mp4"} <= medium.suffixes
    read = read_of(medium, tmp_path / "a.png")
    assert read.values[:, 0, 3, 3].tolist() == [10, 20, 30]
    assert read.facts == SampleFacts.whole(16, 32)
    assert ".png" not in Videos(5, 16, 32, 8).suffixes


def test_what_cannot_be_used_says_why(clip, tmp_path):
    whole = clip().read_bytes()
    (tmp_path / "noise.mp4").write_bytes(b"not a video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\na.mp4\n#EXT-X-ENDLIST\n")
    expected = {
        "noise.mp4": "damaged video: Invalid data",
        "empty.mp4": "damaged video",
        "half.mp4": "damaged video",
        "list.mp4": "damaged video",
        "a.mp4": "too short: 10 frames at 8 a second, not 13",
    }
    for name, reason in expected.items():
        with pytest.raises(UnreadableSampleError, match=reason):
            read_of(Videos(13, 16, 32, 8), tmp_path / name)


def test_a_video_that_nothing_decodes_is_told(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 16
        container.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        container.mux(stream.encode())
    whole = (tmp_path / "a.mkv").read_bytes()
    assert b"V_MPEG4/ISO/ASP" in whole
    content = Content.of_bytes("a.mkv", whole.replace(b"V_MPEG4/ISO/ASP", b"V_NOTHING/NEW!!"))
    with pytest.raises(UnreadableSampleError, match="nothing here decodes it"):
        Videos(5, 16, 16, 8).read(content)


def test_a_picture_is_no_video_of_several_frames(tmp_path):
    Image.new("RGB", (32, 16)).save(tmp_path / "a.png")
    with pytest.raises(UnreadableSampleError, match="damaged video"):
        read_of(Videos(5, 16, 32, 8), tmp_path / "a.png")


def test_a_file_of_sound_alone_has_no_pictures(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(UnreadableSampleError, match="there are no pictures in it"):
        read_of(Videos(5, 16, 32, 8), tmp_path / "a.mkv")


def test_a_video_that_was_filmed_upright_is_turned(tmp_path):
    path = tmp_path / "a.mp4"
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16, 0] = 255  # the left half is red
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        stream.set_display_rotation(90)  # counterclockwise: what was left is below
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    read = read_of(Videos(5, 32, 16, 8), path)
    assert read.facts == SampleFacts.whole(32, 16)
    values = read.values[0, 0].astype(int)
    assert values[20:, :].min() > 220
    assert values[:12, :].max() < 30


def test_a_video_gets_the_nearest_size_and_is_cut_where_asked(clip):
    path = clip(height=16, width=64)
    wide = read_of(Videos(5, 32, 32, 8, buckets=((32, 32), (16, 64))), path)
    assert wide.values.shape == (3, 5, 16, 64)
    assert wide.changes == ()
    corner = read_of(Videos(5, 32, 32, 8, crop="corner"), path)
    assert (corner.facts.crop, corner.facts.size) == ((0, 0), (32, 32))


@pytest.mark.parametrize(
    ("step", "most", "frames", "kept"),
    [
        *((4, 13, *pair) for pair in [(5, 5), (8, 5), (9, 9), (12, 9), (13, 13), (20, 13)]),
        *((8, 17, *pair) for pair in [(9, 9), (16, 9), (17, 17), (20, 17)]),
    ],
)
def test_a_shorter_video_gets_as_many_frames_as_fit(clip, step, most, frames, kept):
    read = read_of(Videos(most, 16, 32, 8, frame_step=step), clip(frames=frames))
    assert shades(read.values) == list(range(kept))
    assert (f"cut to {kept} frames of {frames}" in read.changes) is (kept < min(frames, most))


def test_one_that_is_too_short_even_so_says_how_many_are_needed(clip):
    with pytest.raises(UnreadableSampleError, match="4 frames at 8 a second, not 13 or at least 5"):
        read_of(Videos(13, 16, 32, 8, frame_step=4), clip(frames=4))
