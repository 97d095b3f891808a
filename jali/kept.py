"""Arrays that take long to compute, kept in the user's cache: every file says what it is of and proves it by a checksum."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jali.errors import FileError
from jali.files import atomic_write

Arrays = dict[str, np.ndarray]
DIGEST = 64  # hexadecimal digits of a SHA-256, the first bytes of a file; an npz archive follows
OF = "of"  # the entry that says what the arrays are of
_log = logging.getLogger("jali")


def kept(file: Path, of: str, compute: Callable[[], Arrays]) -> Arrays:
    """``compute()``, or what it gave before, from ``file``; ``of`` says what it depends on, all of it.

    A file that is truncated or altered, or of something else, is computed anew and replaced, with a word in the log. So is one
    that cannot be written: then the arrays are computed in every call.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        content = None
    except OSError as error:
        _log.warning("%s cannot be read (%s); computed anew", file, error.strerror)
        content = None
    if content is not None:
        found = _unpacked(content, of)
        if not isinstance(found, str):
            return found
        _log.warning("%s %s; computed anew", file, found)
    arrays = compute()
    try:
        atomic_write(file, _packed(arrays, of))
    except FileError as error:
        _log.warning("%s; it is computed anew every time", error)
    return arrays


def _packed(arrays: Arrays, of: str) -> bytes:
    body = io.BytesIO()
    named: dict[str, Any] = {OF: np.array(of), **arrays}
    np.savez(body, **named)
    return hashlib.sha256(body.getbuffer()).hexdigest().encode() + body.getvalue()


def _unpacked(content: bytes, of: str) -> Arrays | str:
    """The arrays, or in words why there are none."""
    body = memoryview(content)[DIGEST:]
    if hashlib.sha256(body).hexdigest().encode() != content[:DIGEST]:
        return "is truncated or altered (its checksum does not fit)"
    with np.load(io.BytesIO(body), allow_pickle=False) as archive:
        if str(archive[OF]) != of:
            return "is of another source or version"
        return {name: archive[name] for name in archive.files if name != OF}
