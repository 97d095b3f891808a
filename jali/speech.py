"""Spoken words as sequences of log-mel energies: an archive of one-second recordings in, arrays out."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.fft import rfft
from scipy.io import wavfile

from jali.errors import DataError

RATE = 16_000  # samples per second; a clip is one second
WINDOW, HOP, BANDS = 640, 320, 40  # 40 ms every 20 ms, as Y. Zhang et al., "Hello Edge", 2017 (arXiv:1711.07128)
STEPS = 1 + (RATE - WINDOW) // HOP
LOWEST, HIGHEST = 20.0, 4000.0  # Hz
FLOOR = 1e-9  # of the power of a full-scale tone, added before the logarithm: near the noise of 16-bit samples


class Clips(NamedTuple):
    """``x`` (N, STEPS, BANDS) float32, ``y`` (N,) index into ``words``, ``speakers`` (N,): who speaks, as text.

    Clips without a speaker (silence) each have one of their own.
    """

    x: np.ndarray
    y: np.ndarray
    speakers: np.ndarray
    words: tuple[str, ...]


def clips(tar: bytes, hop: int = HOP, steps: int = STEPS) -> Clips:
    """The clips of an (uncompressed) tar archive of ``WORD/SPEAKER_….wav``, sorted by name; classes sorted by word.

    ``x`` is (N, ``steps``, BANDS), a frame every ``hop`` samples.
    Clips are 16-bit mono at 16 kHz, cut or filled with silence to one second. Raises :class:`DataError` otherwise.
    """
    found = sorted(_recordings(tar))
    if not found:
        raise DataError("the archive holds no WORD/NAME.wav; get it again")
    words = tuple(sorted({name.split("/")[0] for name, _ in found}))
    parts = [name.split("/") for name, _ in found]
    speakers = [_speaker(word, file) for word, file in parts]
    parts_of_x = (np.stack([wave for _, wave in found[i : i + 64]]) for i in range(0, len(found), 64))
    x = np.concatenate([log_mel(part, hop, steps) for part in parts_of_x])
    return Clips(x, np.array([words.index(word) for word, _ in parts]), np.array(speakers), words)


def log_mel(waves: np.ndarray, hop: int = HOP, steps: int = STEPS) -> np.ndarray:
    """``log(mel · |FFT(hann · frame)|² + FLOOR)`` of waves (N, RATE) in [−1, 1]: (N, steps, BANDS) float32.

    Raises :class:`DataError` where a second has no ``steps`` frames ``hop`` samples apart.
    """
    if hop < 1 or not 1 <= steps <= 1 + (RATE - WINDOW) // hop:
        raise DataError(f"a second has no {steps} frames every {hop} samples; give a smaller hop or fewer steps")
    frames = np.lib.stride_tricks.sliding_window_view(waves, WINDOW, axis=-1)[:, ::hop][:, :steps]
    window = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    spectrum = np.abs(rfft(frames * (window / (window.sum() / 2)), axis=-1)) ** 2  # a full-scale tone has power 1
    return np.log(spectrum @ mel_bands().T.astype(np.float32) + np.float32(FLOOR)).astype(np.float32)


def mel_bands() -> np.ndarray:
    """Triangles (BANDS, WINDOW // 2 + 1) with corners evenly spaced in mel, ``2595 log10(1 + f / 700)`` (HTK)."""
    low, high = (2595 * np.log10(1 + f / 700) for f in (LOWEST, HIGHEST))
    corners = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    frequency = np.arange(WINDOW // 2 + 1) * RATE / WINDOW
    left, middle, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (frequency - left) / (middle - left), (right - frequency) / (right - middle)
    return np.clip(np.minimum(rising, falling), 0.0, None)


def _recordings(tar: bytes) -> Iterator[tuple[str, np.ndarray]]:
    """``WORD/NAME.wav`` and its samples (RATE,) in [−1, 1], of every recording. Nothing is written to disk."""
    try:
        with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
            for member in archive:
                name = "/".join(member.name.split("/")[-2:])
                file = (
                    archive.extractfile(member) if member.isfile() and re.search(r"^[^/]+/[^/]+\.wav$", name) else None
                )
                if file is not None:
                    yield name, _samples(name, file.read())
    except tarfile.TarError as error:
        raise DataError(f"the archive of recordings is damaged ({error}); get it again") from error


def _samples(name: str, content: bytes) -> np.ndarray:
    try:
        rate, samples = wavfile.read(io.BytesIO(content))
    except ValueError as error:
        raise DataError(f"{name} is no sound file ({error}); get the archive again") from error
    if rate != RATE or samples.dtype != np.int16 or samples.ndim != 1:
        raise DataError(
            f"{name} is {samples.dtype} of shape {samples.shape} at {rate} Hz, not 16-bit mono at {RATE} Hz"
        )
    samples = samples[:RATE] / np.float32(32768)
    return np.pad(samples, (0, RATE - len(samples)))


def _speaker(word: str, file: str) -> str:
    """``0a2b400e`` of ``0a2b400e_nohash_0.wav`` or ``backward_0a2b400e_nohash_2.wav.wav``; else the clip's own name."""
    found = re.search(r"([0-9a-f]{8})_nohash_", file)
    return found[1] if found else f"{word}/{file}"
