"""Writing files so that a reader sees the old content or the new, never half of one."""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

from jali.errors import FileError


def writable_folder(folder: str | os.PathLike[str]) -> Path:
    """Create the folder if need be and prove that a file can be written in it; FileError otherwise."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FileError(f"folder {folder} cannot be written ({error.strerror}); choose another one") from error
    return folder


def atomic_write(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write the whole file or nothing: temporary file beside it, fsync, rename. Parents are created."""
    path = Path(path)
    writable_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise FileError(f"{path} cannot be written ({error}); what was there before is unchanged") from error
    return path
