"""The run store: a folder with ``records.jsonl`` (one record per line, appended only) and ``artifacts/``.

What a killed process or a full disk can do to it: nothing to records already written. A record is on disk (fsync) when
:meth:`RecordStore.append` returns; a line that was torn by a kill is moved to ``records.torn`` before the next append,
and a line that could not be written whole is taken back. Processes that share the folder take turns by a file lock.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from jali.errors import FileError
from jali.files import atomic_write, writable_folder
from jali.runs.record import Record, canonical

if TYPE_CHECKING:
    from torch import Tensor


class RecordStore:
    """Records and artefacts of one folder.

    Opening reads only; the folder is created by the first write. ``problems`` lists what was found wrong and put right
    or passed over (a torn last line), one sentence each.

    Raises :class:`~jali.errors.FileError` when a complete line is not a valid record (naming the line), or when the
    folder cannot be read or written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / "records.jsonl"
        self.artifacts = self.folder / "artifacts"
        self.problems: list[str] = []
        self.records()

    def records(self) -> list[Record]:
        """The latest record of every (study, task), in the order in which the tasks were first recorded."""
        latest: dict[tuple[str, str], Record] = {}
        for record in self.history():
            latest[record.study, canonical(record.task)] = record
        return list(latest.values())

    def history(self) -> list[Record]:
        """Every complete record, oldest first, superseded ones included."""
        lines, torn = _split(self._read())
        if torn and _as_record(torn) is None:
            self._report(f"{self.path}: the last line is torn ({len(torn)} bytes) and was passed over")
        elif torn:
            lines.append(torn)
        return [self._line(number, line) for number, line in enumerate(lines, 1)]

    def append(self, record: Record) -> None:
        """Add one record; on return it is on disk. On failure the file is as it was before."""
        line = record.to_json().encode() + b"\n"
        with self._locked() as fd:
            sound = None  # the size to go back to
            try:
                sound = self._repair(fd)
                _write_all(fd, line)
                os.fsync(fd)
            except OSError as error:
                if sound is not None:
                    with suppress(OSError):
                        os.ftruncate(fd, sound)
                raise FileError(f"{self.path}: cannot add a record ({error}); free space and run again") from error

    # --- artefacts -------------------------------------------------------------------------------------------------

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> Path:
        """Write ``artifacts/NAME`` atomically as safetensors; for example a ``state_dict()``."""
        from safetensors.torch import save

        return atomic_write(self._artifact(name), save({key: t.detach().contiguous() for key, t in tensors.items()}))

    def read_tensors(self, name: str) -> dict[str, Tensor]:
        """Read what :meth:`write_tensors` wrote; no code in the file is ever run."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        path = self._artifact(name)
        try:
            return load(path.read_bytes())
        except (OSError, SafetensorError) as error:
            raise FileError(f"{path} is missing, unreadable or truncated ({error})") from error

    # --- inside ----------------------------------------------------------------------------------------------------

    def _artifact(self, name: str) -> Path:
        path = self.artifacts / name
        if not path.resolve().is_relative_to(self.artifacts.resolve()) or path == self.artifacts:
            raise FileError(f"artefact name {name!r} leads out of {self.artifacts}; use a plain file name")
        return path

    def _read(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH)  # not in the middle of another process's line
                return file.read()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise FileError(f"{self.path} cannot be read: {error}") from error

    def _line(self, number: int, line: bytes) -> Record:
        try:
            return Record.from_json(line.decode())
        except (FileError, UnicodeDecodeError) as error:
            raise FileError(f"{self.path}, line {number}: {error}; remove the line or the file") from error

    def _report(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file, open for appending and locked against other processes; waits for its turn."""
        writable_folder(self.folder)
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise FileError(f"{self.path} cannot be written: {error}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)  # releases the lock

    def _repair(self, fd: int) -> int:
        """Make the file end with a newline, a torn line put aside; returns its size. Only under the lock."""
        lines, torn = _split(os.pread(fd, os.fstat(fd).st_size, 0))
        end = sum(len(line) + 1 for line in lines)
        if torn and _as_record(torn) is None:
            # Aside first, then cut: a kill in between leaves the torn line in two places, never in none.
            aside = self.folder / "records.torn"
            old = aside.read_bytes() if aside.exists() else b""
            atomic_write(aside, old + torn + b"\n")
            os.ftruncate(fd, end)
            self._report(f"{self.path}: the last line was torn ({len(torn)} bytes) and was moved to {aside}")
        elif torn:  # whole, only its newline is missing
            _write_all(fd, b"\n")
            end += len(torn) + 1
        return end


def _split(content: bytes) -> tuple[list[bytes], bytes]:
    """Complete lines, and what follows the last newline (empty in a sound file)."""
    *lines, tail = content.split(b"\n")
    return lines, tail


def _as_record(line: bytes) -> Record | None:
    try:
        return Record.from_json(line.decode())
    except (FileError, UnicodeDecodeError):
        return None


def _write_all(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
