"""Speech: log-mel energies obey the laws of spectra; archives are read in memory, and bad ones are refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import wavfile

from jali import data, speech
from jali.errors import DataError

TIME = np.arange(speech.RATE) / speech.RATE


def tone(frequency: float, amplitude: float = 0.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * frequency * TIME)).astype(np.float32)


def wav(samples: np.ndarray, rate: int = speech.RATE) -> bytes:
    file = io.BytesIO()
    wavfile.write(file, rate, samples)
    return file.getvalue()


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def pcm(samples: np.ndarray) -> np.ndarray:
    return np.round(32767 * samples).astype(np.int16)


# --- features ---------------------------------------------------------------------------------------------------------


@given(st.floats(200, 3500))
def test_a_tone_is_loudest_in_the_band_around_it(frequency: float) -> None:
    mel = np.linspace(*(2595 * np.log10(1 + f / 700) for f in (speech.LOWEST, speech.HIGHEST)), speech.BANDS + 2)
    centres = 700 * (10 ** (mel / 2595) - 1)[1:-1]
    found = speech.log_mel(tone(frequency)[None])[0]
    loudest = found.argmax(axis=1)
    assert found.shape == (speech.STEPS, speech.BANDS)
    assert np.abs(loudest - np.abs(centres - frequency).argmin()).max() <= 1


@given(st.floats(0.05, 0.5), st.integers(0, 9))
def test_twice_the_amplitude_is_four_times_the_power(amplitude: float, seed: int) -> None:
    wave = np.random.default_rng(seed).uniform(-amplitude, amplitude, speech.RATE).astype(np.float32)
    once, twice = speech.log_mel(np.stack([wave, 2 * wave]))
    np.testing.assert_allclose(twice - once, np.log(4), atol=1e-2)


def test_silence_is_the_floor_and_frames_are_local() -> None:
    quiet = np.zeros((1, speech.RATE), dtype=np.float32)
    np.testing.assert_allclose(speech.log_mel(quiet), np.log(speech.FLOOR), rtol=1e-6)
    click = quiet.copy()
    click[0, 10 * speech.HOP + speech.HOP // 2] = 1.0
    heard = (speech.log_mel(click) > np.log(speech.FLOOR) + 1).any(axis=2)[0]
    assert np.flatnonzero(heard).tolist() == [9, 10]  # windows are two hops long


def test_every_band_hears_something_and_none_the_ends() -> None:
    bands = speech.mel_bands()
    assert bands.shape == (speech.BANDS, speech.WINDOW // 2 + 1)
    assert ((bands >= 0) & (bands <= 1)).all()
    assert (bands.max(axis=1) > 0.5).all()
    frequency = np.arange(bands.shape[1]) * speech.RATE / speech.WINDOW
    assert not bands[:, (frequency <= speech.LOWEST) | (frequency >= speech.HIGHEST)].any()


# --- archives ---------------------------------------------------------------------------------------------------------


def test_clips_are_sorted_filled_and_know_their_speakers() -> None:
    short = pcm(tone(500)[:8000])
    found = speech.clips(
        tar(
            {
                "README.md": b"nothing",
                "yes/0a2b400e_nohash_1.wav": wav(short),
                "_silence_/7.wav": wav(np.zeros(speech.RATE, np.int16)),
                "./_unknown_/tree_0a2b400e_nohash_0.wav.wav": wav(pcm(tone(900))),
            }
        )
    )
    assert found.words == ("_silence_", "_unknown_", "yes")
    assert found.y.tolist() == [0, 1, 2]
    assert found.speakers.tolist() == ["_silence_/7.wav", "0a2b400e", "0a2b400e"]
    assert found.x.shape == (3, speech.STEPS, speech.BANDS)
    assert found.x.dtype == np.float32
    np.testing.assert_allclose(found.x[2, 26:], np.log(speech.FLOOR), rtol=1e-6)
    assert found.x[2, :20].max() > -5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tar({"README.md": b"x"}), r"holds no WORD/NAME\.wav"),
        (b"no archive", "damaged"),
        (tar({"yes/a.wav": b"no sound"}), r"yes/a\.wav is no sound file"),
        (tar({"yes/a.wav": wav(np.zeros(100, np.int16), 8000)}), r"at 8000 Hz, not 16-bit mono at 16000"),
        (tar({"yes/a.wav": wav(np.zeros(100, np.float32))}), "float32"),
        (tar({"yes/a.wav": wav(np.zeros((100, 2), np.int16))}), r"shape \(100, 2\)"),
    ],
)
def test_a_bad_archive_is_refused_by_name(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        speech.clips(content)


# --- the set ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Twenty speakers who each say three words, one word at one pitch."""
    rng, files = np.random.default_rng(0), {}
    for speaker in range(20):
        for k, word in enumerate(("down", "up", "yes")):
            noise = 0.01 * rng.standard_normal(speech.RATE)
            files[f"{word}/{speaker:08x}_nohash_0.wav"] = wav(pcm(tone(300 * (k + 1)) + noise))
    content = tar(files)
    changed = data.SPEECH._replace(content_md5=hashlib.md5(content, usedforsecurity=False).hexdigest())
    monkeypatch.setattr(data, "SPEECH", changed)
    path = tmp_path / "speech_commands" / changed.file
    path.parent.mkdir()
    path.write_bytes(gzip.compress(content))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("seed", [0, 1])
def test_the_split_is_standardized_by_training_and_parts_no_speaker(small: Path, seed: int) -> None:
    set_ = data.load("speech-commands", small, seed=seed)
    assert (set_.classes, set_.steps, set_.features) == (3, speech.STEPS, speech.BANDS)
    sizes = [len(part.y) for part in (set_.train, set_.validation, set_.test)]
    assert sum(sizes) == 60
    assert all(size % 3 == 0 for size in sizes)  # a speaker's three clips stay together
    for part in (set_.train, set_.validation, set_.test):
        assert len(set(torch.bincount(part.y, minlength=3).tolist())) == 1
    flat = set_.train.x.reshape(-1, speech.BANDS)
    torch.testing.assert_close(flat.mean(0), torch.zeros(speech.BANDS), atol=1e-3, rtol=0)
    torch.testing.assert_close(flat.std(0, correction=0), torch.ones(speech.BANDS), atol=1e-3, rtol=0)
    again = data.load("speech-commands", small, seed=seed)
    assert torch.equal(again.test.x, set_.test.x)


def test_the_split_depends_on_the_seed(small: Path) -> None:
    one, other = (data.load("speech-commands", small, seed=seed).test.x for seed in (0, 1))
    assert one.shape != other.shape or not torch.equal(one, other)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps of every time that features are computed."""
    calls, clips = [], speech.clips

    def counted(tar: bytes, hop: int, steps: int) -> speech.Clips:
        calls.append(steps)
        return clips(tar, hop, steps)

    monkeypatch.setattr(speech, "clips", counted)
    return calls


def equal(one: data.Dataset, other: data.Dataset) -> bool:
    parts = ((one.train, other.train), (one.validation, other.validation), (one.test, other.test))
    return one.classes == other.classes and all(torch.equal(a.x, b.x) and torch.equal(a.y, b.y) for a, b in parts)


def test_features_are_computed_once_for_every_set(small: Path, computed: list[int]) -> None:
    for name in ("speech-commands", "speech-commands-400"):
        first = data.load(name, small)
        assert equal(first, data.load(name, small))
        data.load(name, small, seed=1)
    assert computed == [speech.STEPS, 400]


@pytest.mark.parametrize("where", [0, 5, 64, 500, -1])
@pytest.mark.parametrize("spoil", [lambda c, k: c[:k], lambda c, k: c[:k] + bytes([c[k] ^ 1]) + c[k:][1:]])
def test_a_truncated_or_altered_cache_is_computed_anew_with_a_word(
    small: Path, computed: list[int], caplog: pytest.LogCaptureFixture, spoil: object, where: int
) -> None:
    first = data.load("speech-commands", small)
    (file,) = (path for path in (small / "cache").rglob("*") if path.is_file())
    whole = file.read_bytes()
    assert not caplog.messages
    file.write_bytes(spoil(whole, where))
    with caplog.at_level(logging.WARNING, "jali"):
        assert equal(first, data.load("speech-commands", small))
    assert caplog.messages == [f"{file} is truncated or altered (its checksum does not fit); computed anew"]
    assert file.read_bytes() == whole
    assert len(computed) == 2


def test_features_of_another_archive_are_not_taken(
    small: Path, computed: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    first = data.load("speech-commands", small)
    path = small / "speech_commands" / data.SPEECH.file
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1))  # the same content
    with caplog.at_level(logging.WARNING, "jali"):
        assert equal(first, data.load("speech-commands", small))
    assert "is of another source or version; computed anew" in caplog.text
    assert len(computed) == 2
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-512]))
    with pytest.raises(DataError, match="MD5 of its uncompressed content"):
        data.load("speech-commands", small)
    path.unlink()
    with pytest.raises(DataError, match="no file"):
        data.load("speech-commands", small)


def test_a_cache_that_cannot_be_used_is_told_and_does_without(
    small: Path, computed: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    (small / "cache").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING, "jali"):
        first = data.load("speech-commands", small)
        assert equal(first, data.load("speech-commands", small))
    assert len(computed) == 2
    assert caplog.text.count("is computed anew every time") == 2


@pytest.mark.data
@pytest.mark.skipif(
    not (Path(os.environ.get("JALI_DATA") or "/nonexistent") / "speech_commands").is_dir(),
    reason="JALI_DATA has no speech_commands",
)
def test_the_canonical_speech_commands() -> None:
    set_ = data.load("speech-commands")
    assert (set_.classes, set_.steps, set_.features) == (12, 49, 40)
    assert sum(len(part.y) for part in (set_.train, set_.validation, set_.test)) == 4890
