"""Files of data sets: found in the user's folder or downloaded into the cache, and believed only if their checksum is right."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import NamedTuple

from jali.errors import DataError


class Source(NamedTuple):
    """One file of a set, gzipped or plain: where it is and what it must contain."""

    set_name: str
    file: str
    content_md5: str  # of the uncompressed content
    gz_md5: str  # of the mirrors' copy
    mirrors: tuple[str, ...]  # none: it cannot be downloaded


def content_of(root: Path | None, source: Source) -> bytes:
    """The uncompressed content; :class:`DataError` if it cannot be had or has another checksum."""
    return verified(file_of(root, source), source)


def file_of(root: Path | None, source: Source) -> Path:
    """Where it lies: in the folder ``root``, or, without one, in the cache, downloaded if need be."""
    return _download(source) if root is None else _local(root, source)


def cache() -> Path:
    """The user's cache of downloads and of what is computed from them."""
    import pooch

    return Path(pooch.os_cache("jali"))


def _how_to_get(source: Source) -> str:
    if not source.mirrors:
        return f"put {source.file} (MD5 {source.content_md5}) into DIR/{source.set_name}/ and set JALI_DATA=DIR"
    return (
        f"download {source.mirrors[0]}{source.file} into DIR/{source.set_name}/ and set JALI_DATA=DIR, "
        "or unset JALI_DATA on a machine with a network to have it downloaded"
    )


def _local(root: Path, source: Source) -> Path:
    path = root / source.set_name / source.file
    if not path.is_file():
        raise DataError(f"{source.set_name}: no file {path} (folder from JALI_DATA or root=); {_how_to_get(source)}")
    return path


def _download(source: Source) -> Path:
    """Fetch into the user's cache; pooch verifies a temporary file first: the final name never holds a partial one."""
    import pooch

    pooch.get_logger().setLevel("WARNING")
    causes = []
    for mirror in source.mirrors:
        try:
            path = pooch.retrieve(
                mirror + source.file,
                known_hash=f"md5:{source.gz_md5}",
                fname=source.file,
                path=cache() / source.set_name,
            )
            return Path(path)
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; a failed checksum is a ValueError
            causes.append(f"{mirror}: {type(error).__name__}: {str(error)[:160]}")
    why = "; ".join(causes) or "no address is known"
    raise DataError(f"{source.set_name}: {source.file} could not be downloaded ({why}); {_how_to_get(source)}")


def verified(path: Path, source: Source) -> bytes:
    """The uncompressed content, if and only if it has the canonical checksum."""
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is unreadable or truncated ({error}); delete it and get it again") from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != source.content_md5:
        raise DataError(
            f"{path}: the MD5 of its uncompressed content is {found}, expected {source.content_md5}; "
            "delete it and get it again"
        )
    return content
