"""The command line: parsing only. Every command hands over to one function of the library.

Exit status: 0 done, 2 an error that jali explains in one line, 130 stopped by Ctrl-C. Heavy modules are imported inside
the commands, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

import contextlib
import difflib
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from jali.errors import BudgetError, CriterionError, DataError, JaliError, ModelError
from jali.plain import an

ERROR, STOPPED = 2, 130


class _Commands(TyperGroup):
    """The one place where an error becomes a line on stderr and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except JaliError as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            else:
                typer.echo(f"jali: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(ERROR) from None
        except KeyboardInterrupt:
            typer.echo("jali: stopped; give the same command again", err=True)
            raise typer.Exit(STOPPED) from None


app = typer.Typer(
    cls=_Commands,
    name="jali",
    help="Make recurrent networks small and fast by understanding their structure.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Start with `jali demo`; then `jali prune --help` for a model of your own.",
)


def main() -> None:
    """The entry point of the ``jali`` command."""
    app()


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"jali {version('jali')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(short_help="Prune a small LSTM and see what it costs and gains.")
def demo(
    task: Annotated[
        Literal["digits", "mnist"], typer.Option(help="digits is embedded; mnist needs JALI_DATA or a download.")
    ] = "digits",
    out: Annotated[Path | None, typer.Option(help="Folder for the report. [default: out/demo-TASK]")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the run.")] = 0,
) -> None:
    """Train an LSTM, prune half of it by its lattice, repair it, and report what it costs and gains."""
    from jali.files import writable_folder

    folder = out or Path("out") / f"demo-{task}"
    with _no_empty_folder(folder):
        writable_folder(folder)  # before torch is imported
        from jali.studies.demo import run_demo

        run_demo(task, folder, seed)


PrunedFolder = Annotated[
    Path, typer.Option(help="New folder for weights, plan.json and report.html, or one of an older run.")
]
Scope = Annotated[Literal["site", "global"], typer.Option(help="Spend the budget in every site, or over all.")]
CriterionOptions = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="An option of the criterion; may be repeated.")
]


@app.command()
def prune(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="pkg.module:callable that builds the nn.Module.")],
    weights: Annotated[Path, typer.Option(help="The model's state_dict as safetensors.")],
    data: Annotated[str, typer.Option(help="pkg.module:callable that returns calibration data: tensor or batches.")],
    out: PrunedFolder,
    criterion: Annotated[str, typer.Option(help="Which units to keep; see `jali criteria`.")] = "lattice",
    budget: Annotated[
        float | None, typer.Option(help="Fraction of the units to remove, in (0, 1); this or --threshold.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Remove the units scored below this.")] = None,
    multiple_of: Annotated[int, typer.Option(help="Round the widths up to a multiple of this.")] = 1,
    min_width: Annotated[int, typer.Option(help="Keep at least this many units per site.")] = 1,
    scope: Scope = "site",
    option: CriterionOptions = None,
    no_fold: Annotated[bool, typer.Option("--no-fold", help="Cut only; do not repair the survivors.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of whatever is drawn.")] = 0,
) -> None:
    """Prune your own model and write the smaller one.

    Modules are looked up in the current directory, too. For example: jali prune mypkg.models:build --weights
    w.safetensors --data mypkg.data:calibration --budget 0.5 --out pruned
    """
    if (budget is None) == (threshold is None):
        raise BudgetError("give either --budget (fraction of units to remove) or --threshold (score), and not both")
    options = _key_values(option or [])
    _expect_weights(weights)
    with _output_folder(out):  # before any work
        build, calibration = _builder(model), _loaded(data)
        from jali.studies.pruned import prune_to_folder

        result = prune_to_folder(
            build=build, weights=weights, data=calibration, out=out, criterion=criterion, budget=budget,
            threshold=threshold, multiple_of=multiple_of, min_width=min_width, scope=scope, options=options,
            fold=not no_fold, seed=seed,
        )  # fmt: skip
    typer.echo(f"{result}\n  written: {out / 'model.safetensors'}, plan.json, records.jsonl, report.html")


@app.command()
def analyze(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="pkg.module:callable that builds the nn.Module.")],
    weights: Annotated[Path, typer.Option(help="The model's state_dict as safetensors.")],
    data: Annotated[
        str | None, typer.Option(help="pkg.module:callable that returns data; for dynamics and information.")
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="A plan.json: what it would change.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of whatever is drawn.")] = 0,
) -> None:
    """Order, communities, dynamics and information of your own model.

    For example: jali analyze mypkg.models:build --weights w.safetensors --data mypkg.data:calibration
    """
    _expect_weights(weights)
    build, found = _builder(model), None if data is None else _loaded(data)
    from jali.studies.analyzed import analyze_files

    result = analyze_files(build=build, weights=weights, data=found, plan=plan, out=out, seed=seed)
    told = f"\n  written: {out}; jali report {out.parent} makes a page of it" if out else ""
    typer.echo(str(result) + told)


@app.command()
def verify(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="pkg.module:callable that builds the nn.Module.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="The model's state_dict as safetensors.")] = None,
    data: Annotated[str | None, typer.Option(help="pkg.module:callable that returns data: tensor or batches.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the verdicts.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of whatever is drawn.")] = 0,
) -> None:
    """Which theorems of the lattice pruning paper hold for a model; without one, for a small RNN.

    One line per theorem and recurrent layer: holds, fails or premise not met, with a witness. For example: jali verify
    mypkg.models:build --weights w.safetensors --data mypkg.data:calibration. The exit status is 0 whatever the answers are.
    """
    if (model is None) != (weights is None):
        raise ModelError("give MODEL and --weights together, or neither for a small RNN")
    if model is None and data is not None:
        raise DataError("--data is for a MODEL of your own; leave it out")
    if weights is not None:
        _expect_weights(weights)
    build, found = None if model is None else _builder(model), None if data is None else _loaded(data)
    from jali.studies.verified import verify_files

    verdicts = verify_files(build=build, weights=weights, data=found, out=out, seed=seed)
    for verdict in verdicts:
        typer.echo(str(verdict))
    if out:
        typer.echo(f"written: {out}")


@app.command()
def study(
    name: Annotated[str | None, typer.Argument(help="Which study; without it they are listed.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small run that shows the study works.")] = False,
    seeds: Annotated[int | None, typer.Option(help="Number of seeds. [default: the study's own]")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for records and report. [default: out/NAME, out/NAME-quick if quick]")
    ] = None,
) -> None:
    """Reproduce a paper's table or figure; run again to resume."""
    if name is None:
        from jali.studies.base import studies

        for each in studies():
            typer.echo(f"{each.name:<20} {each.title} ({each.paper})")
        return
    from jali.studies.base import find_study
    from jali.studies.runner import run_study

    found = find_study(name)
    # A quick run has a folder of its own: its records would otherwise stand in for the full run's.
    folder = out or Path("out") / (f"{name}-quick" if quick else name)
    with _no_empty_folder(folder):
        finished = run_study(found, folder, seeds=seeds, quick=quick).finished
    if not finished:
        raise typer.Exit(STOPPED)


@app.command(short_help="Print the tables of a folder and write its report again.")
def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder with records.jsonl, or analyses of jali analyze.")
    ],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
) -> None:
    """Write DIR/report.html again, from DIR/records.jsonl and the analyses in DIR alone, and print its tables."""
    from jali.studies.runner import regenerate_report

    regenerate_report(folder, as_markdown=markdown)


@app.command()
def criteria() -> None:
    """List the criteria, one line each."""
    from jali.criterion import criteria as known

    for name, line in known().items():
        typer.echo(f"{name:<16} {line}")


# --- parsing --------------------------------------------------------------------------------------------------------


def _expect_weights(weights: Path) -> None:
    if not weights.is_file():
        raise DataError(f"no file {weights}; --weights takes the state_dict of MODEL as safetensors")


def _builder(model: str) -> Callable[[], Any]:
    return _guarded(_resolve(model, ModelError), model, ModelError)


def _loaded(data: str) -> Any:
    return _guarded(lambda: _listed(_resolve(data, DataError)()), data, DataError)()


def _resolve(where: str, error: type[JaliError]) -> Callable[[], Any]:
    """``pkg.module:callable``, imported with the current directory on the path."""
    import importlib

    module_name, _, name = where.partition(":")
    if not (module_name and name.isidentifier()):
        raise error(f"{where!r} is not of the form pkg.module:callable")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as cause:  # the user's module may raise anything while it is imported
        raise error(
            f"{where!r} cannot be imported: {type(cause).__name__}: {cause}; modules are looked up in the current "
            f"directory, {Path.cwd()}, and among the installed packages"
        ) from cause
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, [each for each in vars(module) if not each.startswith("_")], n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it is the file {getattr(module, '__file__', None)}"
        raise error(f"module {module_name!r} has no {name!r}; {hint}")
    found = getattr(module, name)
    if not callable(found):
        raise error(f"{where!r} is {an(type(found).__name__)}, not a callable; give the function that makes it")
    return found


def _guarded(call: Callable[[], Any], where: str, error: type[JaliError]) -> Callable[[], Any]:
    """The same call; what the user's code raises becomes one clear error."""

    def guarded() -> Any:
        try:
            return call()
        except JaliError:
            raise
        except (Exception, SystemExit) as cause:
            raise error(f"{where} raised {type(cause).__name__}: {cause}") from cause

    return guarded


def _listed(data: Any) -> Any:
    """A generator runs the user's code when it is read: here, where its mistakes are reported as such."""
    return list(data) if isinstance(data, Iterator) else data


@contextlib.contextmanager
def _no_empty_folder(folder: Path) -> Iterator[None]:
    """After an error, the folders that were made for nothing are removed; one that holds something stays."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for each in new:
                each.rmdir()
        raise


@contextlib.contextmanager
def _output_folder(out: Path) -> Iterator[None]:
    """The folder that ``jali prune`` writes: made, and writable; gone again after an error if it was made for nothing."""
    from jali.files import writable_folder

    _refuse_foreign(out)
    with _no_empty_folder(out):
        writable_folder(out)
        yield


def _refuse_foreign(out: Path) -> None:
    """A folder with files of somebody else's is not written into."""
    own = {"model.safetensors", "plan.json", "records.jsonl", "report.html"}
    there = {each.name for each in out.iterdir() if not each.name.startswith(".")} if out.is_dir() else set()
    foreign = sorted(there - own) or sorted(there if "model.safetensors" not in there else ())
    if foreign:
        raise DataError(f"folder {out} holds {foreign[0]!r}, not written by jali prune; choose a new or empty folder")


def _key_values(pairs: list[str]) -> dict[str, Any]:
    """``key=value`` pairs; a value is JSON where it is JSON (0.5, true, null), and a string elsewhere."""
    import json

    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not (key and equals):
            raise CriterionError(f"--option {pair!r} is not of the form KEY=VALUE")
        if key in options:
            raise CriterionError(f"--option {key} is given twice")
        try:
            options[key] = json.loads(text)
        except ValueError:
            options[key] = text
    return options


if __name__ == "__main__":
    main()
