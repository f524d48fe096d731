"""Samples in the report: pictures, videos and sounds, small, in the page itself, and bounded."""

import base64
import re
from datetime import UTC, datetime
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from PIL import Image

from st_shared.protocol.journal import MetricEvent
from st_shared.spec.validation import PromptSpec
from st_trainer.data.images import Images
from st_trainer.data.sounds import Sounds
from st_trainer.data.videos import Videos
from st_trainer.report import media
from st_trainer.report.curve import shown
from st_trainer.report.page import Facts, page
from st_trainer.report.record import Record
from st_trainer.validation.previews import preview_sets, write_previews
from st_trainer.validation.samples import Drawn

NOW = datetime(2026, 1, 2, tzinfo=UTC)
PICTURES = Images(3, 16, 16)
FRAMES, RATE = 61, 15.0
VIDEOS = Videos(FRAMES, 24, 640, RATE)


def sounds(rate):
    return Sounds(rate, rate)


def drawn(values, prompt="a dog"):
    return Drawn(0, PromptSpec(prompt=prompt), values, None)


def shade(level, shape):
    return np.full(shape, level, np.uint8)


def tone(rate, seconds):
    """A tone of 440 Hz, ``(2, L)``."""
    times = np.arange(int(rate * seconds)) / rate
    return np.stack([0.5 * np.sin(2 * np.pi * 440 * times)] * 2).astype(np.float32)


def moving():
    """Frames that grow brighter, ``(3, F, H, W)``."""
    return np.stack([shade(4 * n, (3, 24, 640)) for n in range(FRAMES)], axis=1)


def written(folder, step, values, medium, kind="samples", column=""):
    write_previews(folder, kind, step, [(column, drawn(values))], medium)


def html_of(folder, record=None):
    facts = Facts(
        title="a run",
        outcome="succeeded",
        step=2,
        steps=2,
        facts={"family": "tiny"},
        config={"seed": 1},
        environment={"python": "3"},
        written=NOW,
    )
    return page(facts, record or Record(), folder)


def contents(html, kind):
    """What lies in the page itself of a type."""
    found = re.findall(rf"data:{kind};base64,([A-Za-z0-9+/=]+)", html)
    return [base64.b64decode(each) for each in found]


def test_a_video_is_shown_as_a_small_moving_picture_that_lasts_as_long(tmp_path):
    written(tmp_path, 2, moving(), VIDEOS)
    [content] = contents(html_of(tmp_path), "image/webp")
    with Image.open(BytesIO(content)) as picture:
        assert (picture.size, picture.n_frames) == ((320, 12), 24)
        pauses, levels = [], []
        for frame in range(picture.n_frames):
            picture.seek(frame)
            levels.append(np.asarray(picture.convert("L")).mean())
            pauses.append(picture.info["duration"])
    assert sum(pauses) == pytest.approx(1000 * FRAMES / RATE, rel=0.02)
    assert all(earlier < later for earlier, later in pairwise(levels))


@pytest.mark.parametrize(
    ("rate", "kind"), [(8_000, "audio/mpeg"), (44_100, "audio/mpeg"), (9_000, "audio/wav")]
)
def test_a_sound_can_be_heard_and_is_seen_as_its_waveform(tmp_path, rate, kind):
    written(tmp_path, 2, tone(rate, 1.5), sounds(rate))
    html = html_of(tmp_path)
    [sound], [content] = contents(html, kind), contents(html, "image/webp")
    values, found = soundfile.read(BytesIO(sound))
    assert (found, values.shape[1]) == (rate, 2)
    assert len(values) / rate == pytest.approx(1.5, abs=0.2)
    spectrum = np.abs(np.fft.rfft(values[:, 0]))
    assert np.argmax(spectrum) * rate / len(values) == pytest.approx(440, abs=2)
    with Image.open(BytesIO(content)) as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 8
    assert html.count("<audio controls") == 1


def test_of_a_long_sound_the_beginning_is_kept(tmp_path):
    written(tmp_path, 2, tone(8_000, 31), sounds(8_000))
    [sound] = contents(html_of(tmp_path), "audio/mpeg")
    values, rate = soundfile.read(BytesIO(sound))
    assert len(values) / rate == pytest.approx(30, abs=0.2)


def test_pictures_stand_by_prompt_and_step_and_sweeps_by_strength(tmp_path):
    for step in (0, 1_000):
        written(tmp_path, step, shade(100, (1, 16, 16)), PICTURES)
    written(tmp_path, 1_000, shade(1, (3, 16, 16)), PICTURES, "sweep", "trained x 2")
    html = html_of(tmp_path)
    assert re.findall("<figcaption>(.*?)</figcaption>", html) == [
        "before training",
        "step 1,000",
        "trained x 2",
    ]
    assert html.count("<h3>a dog</h3>") == 2
    assert "Adapter sweep, step 1,000" in html
    assert len(contents(html, "image/webp")) == 3


def test_where_room_is_short_the_first_and_the_last_stay(tmp_path, monkeypatch):
    for step in range(0, 500, 10):
        written(tmp_path, step, shade(step % 256, (3, 16, 16)), PICTURES)
    assert "26 steps in between are left out" in html_of(tmp_path)
    sizes = [sum(p.stat().st_size for p in s.folder.iterdir()) for s in preview_sets(tmp_path)]
    monkeypatch.setattr(media, "_MOST_BYTES", 3 * max(sizes))
    html = html_of(tmp_path)
    assert "47 steps in between are left out" in html
    steps = re.findall("<figcaption>(.*?)</figcaption>", html)
    assert (steps[0], steps[-1], len(steps)) == ("before training", "step 490", 3)


def test_words_of_people_are_text_and_nothing_is_fetched(tmp_path):
    prompt = '"><img src="https://example.org/x.png" onerror="alert(1)">'
    sample = drawn(shade(9, (3, 16, 16)), prompt)
    write_previews(tmp_path, "samples", 1, [("", sample)], PICTURES)
    record = Record()
    record.hear(MetricEvent(seq=1, at=NOW, step=1, values={"<b>loss</b>": 1.0}))
    html = html_of(tmp_path, record)
    assert "<b>loss" not in html
    assert re.findall("<img src=(.{16})", html) == ['"data:image/webp']
    assert "default-src &#39;none&#39;" in html or "default-src 'none'" in html


def test_a_set_that_is_not_whole_is_not_shown(tmp_path):
    written(tmp_path, 1, shade(9, (3, 16, 16)), PICTURES)
    written(tmp_path, 2, shade(9, (3, 16, 16)), PICTURES)
    (tmp_path / "samples-step-000002" / "set.json").write_text("{")
    assert re.findall("<figcaption>(.*?)</figcaption>", html_of(tmp_path)) == ["step 1"]


def test_the_last_step_of_a_chart_has_room_for_its_digits(tmp_path):
    record = Record()
    for step in (0, 10_000_000):
        record.hear(MetricEvent(seq=1, at=NOW, step=step, values={"loss": 1.0 + step}))
    html = html_of(tmp_path, record)
    [width] = re.findall('viewBox="0 0 ([0-9]+) ', html)
    [last] = re.findall('x="([0-9.]+)" [^>]*class="below">10,000,000<', html)
    digit = 7.5  # at most, of letters of 13 pixels
    assert float(last) + len("10,000,000") / 2 * digit <= int(width) + digit


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.693147, "0.6931"), (1.37e-05, "1.37e-05"), (9_999, "9999"), (-9_999.6, "-10k"),
        (101_750, "101.8k"), (999_950, "1M"), (1.5e7, "15M"), (-2e9, "-2G"), (3e17, "3e+17"),
    ],
)  # fmt: skip
def test_numbers_are_short_enough_for_the_margin_of_a_chart(value, text):
    assert shown(value) == text
    assert len(text) <= 8
