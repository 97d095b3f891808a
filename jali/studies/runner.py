"""Run a study with progress and resume, print its tables, and write its report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jali.errors import DataError, FileError, JaliError
from jali.files import writable_folder
from jali.report.analysis import analysis_section, saved_analyses
from jali.report.html import write_report
from jali.report.tables import Figure, Table, markdown, metrics_tables
from jali.report.terminal import print_table
from jali.runs.record import Record, canonical
from jali.runs.store import RecordStore
from jali.studies.base import Settings, Study, Task, find_study

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class StudyRun:
    """How a run ended: the folder's records of the study, the report (None without records), finished or stopped."""

    records: tuple[Record, ...]
    report: Path | None
    finished: bool


def run_study(
    study: Study, out: str | Path, seeds: int | None = None, quick: bool = False, console: Console | None = None
) -> StudyRun:
    """Run what ``out`` does not hold yet, then print the tables and write ``out/report.html``.

    ``seeds`` is their number (0, 1, …; the study's own default when None, 1 when quick). Ctrl-C stops between two
    records: everything finished is kept, the report shows it, and the same command goes on from there; the result then
    says ``finished=False``. An error of a task also leaves the report of what was finished, and is raised.
    """
    from rich.console import Console

    console = console or Console()
    count = seeds if seeds is not None else 1 if quick else study.default_seeds
    if count < 1:
        raise DataError(
            f"--seeds {count} is below 1; give how many seeds to run, for example --seeds {study.default_seeds}"
        )
    settings = Settings(quick, tuple(range(count)))
    store = RecordStore(writable_folder(out))
    tasks = _checked(study, study.tasks(settings))
    finished = False
    try:
        _run_tasks(study, tasks, store, console)
        finished = True
    except KeyboardInterrupt:
        console.print("stopped; run the same command to resume", style="yellow")
    finally:
        records = _own(store, study)
        report = _report(study, store, records, console, tasks) if records else None
    return StudyRun(tuple(records), report, finished)


def _checked(study: Study, tasks: list[Task]) -> list[Task]:
    keys = [canonical(task.key) for task in tasks]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise JaliError(f"study {study.name!r} has two tasks with the key {min(twice)}; keys must be unique")
    return tasks


def _own(store: RecordStore, study: Study) -> list[Record]:
    return [record for record in store.records() if record.study == study.name]


def _changed(task: Task, done: dict[str, dict[str, Any]]) -> list[str] | None:
    """The settings in which the task differs from its record: none if it is done, None if it has no record."""
    old = done.get(canonical(task.key))
    if old is None:
        return None
    now = {name: canonical({"": value}) for name, value in task.config.items()}
    before = {name: canonical({"": value}) for name, value in old.items()}
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]


def _run_tasks(study: Study, tasks: list[Task], store: RecordStore, console: Console) -> None:
    done = {canonical(record.task): record.config for record in _own(store, study)}
    todo = [task for task in tasks if _changed(task, done) != []]
    for problem in store.problems:
        console.print(problem, style="yellow", markup=False)
    if len(todo) < len(tasks):
        console.print(
            f"{len(tasks) - len(todo)} of {len(tasks)} tasks are already recorded in {store.path}", markup=False
        )
    changed = [settings for task in todo if (settings := _changed(task, done))]
    if changed:
        which = ", ".join(dict.fromkeys(name for settings in changed for name in settings))
        console.print(
            f"{len(changed)} of {len(tasks)} tasks are recorded in {store.path} with other settings ({which}) and run "
            "again; their records of before stay in the file",
            markup=False,
        )
    if not todo:
        return
    from jali.studies.timing import one_thread  # late: it imports torch

    with _Display(console, len(todo)) as display, one_thread():
        for task in todo:
            display.start(task.title)
            begin = time.perf_counter()
            record = study.run(task, store, display.progress)
            record = replace(record, timings={**record.timings, "task": time.perf_counter() - begin})
            if (record.study, canonical(record.task), canonical(record.config)) != (
                study.name, canonical(task.key), canonical(task.config),
            ):  # fmt: skip
                raise JaliError(f"study {study.name!r}: the record of task {task.title!r} has another key or config")
            store.append(record)
            display.finish()


class _Display(AbstractContextManager["_Display"]):
    """A live bar with the current task and the time left on a terminal, one plain line per task elsewhere."""

    def __init__(self, console: Console, total: int) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        self.console, self.total, self.number, self.title = console, total, 0, ""
        self.begin = time.perf_counter()
        columns = (
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        self.bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.row = self.bar.add_task("", total=total)

    def __enter__(self) -> _Display:
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def start(self, title: str) -> None:
        self.number, self.title, self.task_begin = self.number + 1, title, time.perf_counter()
        self.bar.update(self.row, description=title)

    def progress(self, message: str, fraction: float | None = None) -> None:
        self.bar.update(self.row, description=f"{self.title}: {message}")
        if fraction is not None:
            self.bar.update(self.row, completed=self.number - 1 + min(max(fraction, 0.0), 1.0))

    def finish(self) -> None:
        self.bar.update(self.row, completed=self.number)
        now = time.perf_counter()
        left = (now - self.begin) / self.number * (self.total - self.number)
        text = f"[{self.number}/{self.total}] {self.title}: {now - self.task_begin:.1f} s"
        text += f", about {left:.0f} s left" if self.number < self.total and not self.console.is_terminal else ""
        self.console.print(text, markup=False, highlight=False)


# --- reporting ------------------------------------------------------------------------------------------------------


def _report(
    study: Study, store: RecordStore, records: list[Record], console: Console, tasks: Sequence[Task] = ()
) -> Path:
    """Print the tables and write the page. ``tasks`` (of the run just ended) tell which records are not from it."""
    wanted = {canonical(task.key): canonical(task.config) for task in tasks}
    notes = list(store.problems)
    if tasks:
        other = sum(wanted.get(canonical(record.task)) != canonical(record.config) for record in records)
        missing = len(tasks) - (len(records) - other)
        notes += [f"{other} of the records come from other settings than the last command's"] if other else []
        notes += [f"unfinished: {missing} of {len(tasks)} tasks are not recorded yet"] if missing else []
    parts = [_Part(study.title, study.paper, study.summary(records), study.figures(records))]
    _print_tables(parts[0].tables, console)
    for name, found in _by_study(store.records()):
        try:
            parts += [_part(name, found, store.path)] if name != study.name else []
        except FileError as error:  # no reason to withhold what was just made
            notes.append(str(error))
    _print_notes(notes, console)
    return _page(store, parts, console, notes)


def _page(store: RecordStore, parts: Sequence[_Part], console: Console, notes: Sequence[str]) -> Path:
    """Writes and names the page of a folder: all that its records and analyses show."""
    titles, leads = dict.fromkeys(part.title for part in parts), dict.fromkeys(part.lead for part in parts)
    page = write_report(
        store.records(), store.folder / "report.html", title="; ".join(filter(None, titles)),
        lead=" ".join(filter(None, leads)),
        tables=[table for part in parts for table in part.tables],
        figures=[figure for part in parts for figure in part.figures], notes=notes,
    )  # fmt: skip
    console.print(f"report: {page}", markup=False, soft_wrap=True)
    return page


def regenerate_report(folder: str | Path, console: Console | None = None, as_markdown: bool = False) -> Path:
    """Write ``folder/report.html`` again from ``folder/records.jsonl`` and saved analyses alone; what ``jali report`` does.

    The tables are printed, too, ``as_markdown`` if so wanted.

    Tables and figures come from the study that the records name; records of a study that nobody knows get plain tables
    of their metrics; every JSON file that :func:`jali.analyze` saved there gets a section. Raises DataError when the folder
    holds neither a whole record nor an analysis.
    """
    from rich.console import Console

    console = console or Console()
    if Path(folder).is_file():
        raise DataError(f"{folder} is a file; give the folder that it is in, {Path(folder).parent}")
    store = RecordStore(folder)
    records = store.records()
    analyses, problems = saved_analyses(store.folder)
    if not records and not analyses:
        raise DataError(_nothing_recorded(store))
    parts = [_part(name, own, store.path) for name, own in _by_study(records)]
    sections = [analysis_section(found, name, named=len(analyses) > 1) for name, found in analyses]
    parts += [
        _Part("" if records else f"Analysis of {found.model}", "", section.tables, section.figures)
        for section, (_, found) in zip(sections, analyses, strict=True)
    ]
    _print_tables([table for part in parts for table in part.tables], console, as_markdown)
    problems = [*store.problems, *problems]
    if not as_markdown:
        _print_notes(problems, console)
    return _page(store, parts, console, [*problems, *(note for section in sections for note in section.notes)])


@dataclass(frozen=True)
class _Part:
    """What one study shows of its records."""

    title: str
    lead: str
    tables: Sequence[Table]
    figures: Sequence[Figure]


def _by_study(records: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    """The records of each study, in the order of the studies' first ones."""
    return [(name, [r for r in records if r.study == name]) for name in dict.fromkeys(r.study for r in records)]


def _part(name: str, records: Sequence[Record], path: Path) -> _Part:
    try:
        study = find_study(name)
    except JaliError:
        return _Part(name, "", metrics_tables(records), [])
    try:
        return _Part(study.title, study.paper, study.summary(records), study.figures(records))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise FileError(
            f"{path} has records that are not those of study {name!r} ({type(error).__name__}: {error}); run it again"
        ) from error


def _nothing_recorded(store: RecordStore) -> str:
    if store.problems:
        return f"{'; '.join(store.problems)}; no other record is there: run the command that wrote it again"
    return f"{store.path} holds no records; give the folder that a study, demo or analysis wrote to"


def _print_notes(notes: Sequence[str], console: Console) -> None:
    for note in notes:
        console.print(f"note: {note}", markup=False, style="yellow")


def _print_tables(tables: Sequence[Table], console: Console, as_markdown: bool = False) -> None:
    """Each table, and an empty line after it."""
    for table in tables:
        if as_markdown:
            console.print(markdown(table), markup=False, highlight=False, soft_wrap=True)
        else:
            print_table(table, console)
            console.print()
