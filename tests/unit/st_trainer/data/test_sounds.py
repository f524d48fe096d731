import numpy as np
import pytest
import soundfile

from st_trainer.data.content import Content
from st_trainer.data.facts import SampleFacts
from st_trainer.data.medium import UnreadableSampleError
from st_trainer.data.sounds import Sounds
from st_trainer.recordings import write_sound

RATE = 8000
STEREO = Sounds(length=4000, rate=RATE)


def read_of(path):
    return STEREO.read(Content.of_file(path))


def tone(rate, seconds=1.0, hertz=440.0):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


def put(path, *channels, rate=RATE, subtype="FLOAT"):
    soundfile.write(path, np.stack(channels, axis=1), rate, subtype=subtype)
    return path


def test_a_sound_of_the_right_rate_is_cut_and_left_as_it_is(tmp_path):
    left, right = tone(RATE), tone(RATE, hertz=300)
    read = read_of(put(tmp_path / "a.wav", left, right))
    assert read.values.dtype == np.float32
    np.testing.assert_array_equal(read.values, np.float32([left[:4000], right[:4000]]))
    assert read.changes == ()
    assert read.facts == SampleFacts((RATE,), (0,), (4000,))


@pytest.mark.parametrize("rate", [11_025, 44_100, 4_000])
def test_other_rates_are_resampled(tmp_path, rate):
    read = read_of(put(tmp_path / "a.wav", tone(rate), tone(rate), rate=rate))
    assert read.changes == (f"resampled from {rate} Hz",)
    inside = slice(100, None)  # the filter meets silence at the beginning alone
    np.testing.assert_allclose(read.values[0, inside], tone(RATE)[:4000][inside], atol=5e-3)


def test_mono_is_doubled_and_of_more_channels_the_first_two_stay(tmp_path):
    one, two, three = (tone(RATE, hertz=hertz) for hertz in (200, 300, 400))
    mono = read_of(put(tmp_path / "a.wav", one))
    many = read_of(put(tmp_path / "b.wav", one, two, three))
    np.testing.assert_array_equal(mono.values[0], mono.values[1])
    np.testing.assert_array_equal(many.values, np.float32([one[:4000], two[:4000]]))
    assert mono.changes == ("converted from 1 channels to 2",)
    assert many.changes == ("converted from 3 channels to 2",)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3"])
def test_other_formats_are_read(tmp_path, name):
    soundfile.write(tmp_path / name, np.stack([tone(RATE)] * 2, axis=1), RATE)
    assert read_of(tmp_path / name).values.shape == (2, 4000)


def test_what_cannot_be_used_says_why(tmp_path):
    put(tmp_path / "short.wav", tone(RATE, 0.25))
    put(tmp_path / "odd.wav", np.full(RATE, np.nan))
    put(tmp_path / "wide.wav", *[tone(RATE)] * 9)
    (tmp_path / "noise.wav").write_bytes(b"not a sound")
    (tmp_path / "empty.flac").write_bytes(b"")
    expected = {
        "short.wav": r"too short: 0\.25 seconds, not 0\.50",
        "odd.wav": "not finite",
        "wide.wav": "9 channels at 8000 Hz are not read",
        "noise.wav": "damaged sound: Format not recognised",
        "empty.flac": "damaged sound",
    }
    for name, reason in expected.items():
        with pytest.raises(UnreadableSampleError, match=reason):
            read_of(tmp_path / name)


def test_what_is_written_is_read_again(tmp_path):
    values = np.stack([tone(RATE), -tone(RATE)]).astype(np.float32)
    write_sound(tmp_path / "a.wav", values, RATE)
    np.testing.assert_allclose(read_of(tmp_path / "a.wav").values, values[:, :4000], atol=1e-4)


@pytest.mark.parametrize(("seconds", "kept"), [(0.1, 800), (0.19, 800), (0.4, 3200), (0.6, 4000)])
def test_a_shorter_sound_gets_the_steps_that_it_fills(tmp_path, seconds, kept):
    path = put(tmp_path / "a.wav", tone(RATE, seconds))
    read = Sounds(4000, RATE, step=800).read(Content.of_file(path))
    assert read.values.shape == (2, kept)
    assert read.facts.size == (kept,)
    assert any("cut to" in change for change in read.changes) is (seconds == 0.19)


def test_one_that_fills_no_step_is_left_out(tmp_path):
    path = put(tmp_path / "a.wav", tone(RATE, 0.09))
    with pytest.raises(UnreadableSampleError, match=r"too short: 0\.09 seconds, not 0\.10"):
        Sounds(4000, RATE, step=800).read(Content.of_file(path))


@pytest.mark.parametrize("rate", [RATE, 2 * RATE])
def test_of_a_longer_sound_the_asked_part_is_kept(tmp_path, rate):
    for name in "abcd":
        put(tmp_path / f"{name}.wav", np.linspace(0, 0.5, 4 * rate), rate=rate)
    starts = {}
    for part in ("beginning", "end", "random"):
        medium = Sounds(4000, RATE, part=part)
        reads = [medium.read(Content.of_file(tmp_path / f"{name}.wav")) for name in "abcd"]
        starts[part] = {read.facts.crop[0] for read in reads}
        for read in reads:
            middle = read.facts.crop[0] + rate // 4
            assert read.values[0, 2000] == pytest.approx(middle / (4 * rate) / 2, abs=1e-2)
    assert starts["beginning"] == {0}
    assert starts["end"] == {4 * rate - rate // 2}
    assert len(starts["random"]) == 4
