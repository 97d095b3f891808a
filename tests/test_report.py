"""The report: right statistics, every picture drawn, every string escaped, nothing loaded from a network."""

from __future__ import annotations

import copy
import io
import json
import math
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jali.errors import DataError, FileError
from jali.report.html import write_report
from jali.report.plots import KINDS, THEMES, draw, with_shared_colours
from jali.report.tables import (
    Comparison,
    Figure,
    Interval,
    Table,
    comparison_table,
    markdown,
    mean_interval,
    metrics_tables,
    over_seeds,
    show,
)
from jali.runs.record import Metric, Record
from jali.runs.store import RecordStore

PAYLOADS = {
    "hasse": {
        "nodes": [{"x": i, "y": i, "label": f"u{i}", "highlight": i == 1} for i in range(3)],
        "edges": [[0, 1], [1, 2]],
        "key": "irreducible",
    },
    "persistence": {
        "density": [0.01, 0.1, 0.9],
        "columns": [1, 3, 2],
        "rows": [1, 2, 2],
        "units": 3,
        "criterion": "lattice",
        "counted": {"up_to": 0.5, "sides": ["columns", "rows"]},
        "scores": [0.2, 0.9, 0.5],
        "kept": [False, True, True],
    },
    "scatter": {
        "x_label": "parameters",
        "y_label": "accuracy (%)",
        "series": [{"label": "a", "x": [10, 1000], "y": [90.0, None], "error": [0.5, None]}],
        "log_x": True,
    },
    "lines": {
        "x_label": "epoch",
        "y_label": "accuracy (%)",
        "series": [
            {"label": "a", "x": [0, 1], "y": [1, 2], "low": [0, 1], "high": [2, 3]},
            {"label": "b", "x": [0], "y": [1]},
        ],
    },
    "bars": {
        "y_label": "ms",
        "labels": ["dense", "small"],
        "values": [2.0, None],
        "errors": [0.1, None],
        "baseline": 2.0,
    },
    "network": {
        "nodes": [{"label": f"n{i}", "x": i, "y": i % 2} for i in range(3)],
        "edges": [[0, 1], [1, 2], [2, 1]],
        "frames": [
            {
                "label": f"update {k}",
                "note": "n1 removed 2→1" if k else "",
                "weights": [0.5, -1.0, None if k else 0.2],
                "values": [0.0, 0.5, 1.0],
                "eigenvalues": [[], [[1.0, 0.5], [1.0, -0.5]], [[2.0, 0.0]]],
            }
            for k in range(2)
        ],
    },
    "traces": {
        "x_label": "updates",
        "columns": 2,
        "panels": [
            {
                "y_label": f"at n{i}",
                "series": [{"label": "n0", "x": [0, 1], "y": [0.0, None], "colour": i}],
                "marks": [{"x": 1, "label": "2→1"}],
            }
            for i in range(3)
        ],
    },
}


def figure(kind: str, **changes: object) -> Figure:
    return Figure(kind, f"A {kind}", {**copy.deepcopy(PAYLOADS[kind]), **changes}, "caption")


def record(seed: int = 0, value: float = 0.5, study: str = "s", **task: object) -> Record:
    return Record(
        study, {**task, "seed": seed}, seed, {"lr": 0.1}, {"accuracy": Metric(value, 100, "%")}, {"train": 1.5}
    )


# --- statistics -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=12).filter(lambda v: np.std(v) > 1e-6))
def test_interval_is_students(values: list[float]) -> None:
    from scipy import stats

    found = mean_interval(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert found.n == len(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-6)
    assert 2 * found.half == pytest.approx(high - low, rel=1e-6)


def test_interval_by_hand_and_at_the_edges() -> None:
    three = mean_interval([1.0, 2.0, 3.0])
    assert three.half == pytest.approx(4.302652729 / math.sqrt(3))
    assert three.text() == "2.00 ± 2.48"
    assert Interval(-1e-5, 0.1, 2).text() == "0.00 ± 0.10"
    assert mean_interval([0.966]).text(1, 100) == "96.6"
    assert mean_interval([]).text() == "–"
    for lost in ([1.0, math.nan], [1.0, math.inf], [math.inf, -math.inf]):
        assert math.isnan(mean_interval(lost).mean), "a diverged run is not left out"
        assert mean_interval(lost).half is None
        assert mean_interval(lost).text() == "–"


def test_comparison_by_hand() -> None:
    table = comparison_table(
        "t",
        [
            Comparison("lattice", 0.96, Interval(0.966, 0.004, 3)),
            Comparison("random", None, Interval(0.9, None, 1)),
            Comparison("lost", 0.5, Interval(math.nan, None, 2)),
        ],
        unit="%",
        scale=100,
        digits=1,
    )
    assert table.columns == ("", "paper (%)", "ours, mean ± 95 % interval (%)", "runs", "difference (points)")
    assert table.rows == (
        ("lattice", "96.0", "96.6 ± 0.4", 3, "+0.6"),
        ("random", "–", "90.0", 1, "–"),
        ("lost", "50.0", "–", 2, "–"),
    )


def test_over_seeds_and_generic_tables() -> None:
    runs = [record(seed, value, kept=kept) for kept, value in ((32, 1.0), (64, 3.0)) for seed in (0, 1)]
    assert over_seeds(runs, "accuracy", lambda r: r.task["kept"] == 64) == Interval(3.0, 0.0, 2)
    assert over_seeds(runs, "none").n == 0
    (table,) = metrics_tables(runs)
    assert table.columns == ("task", "runs", "accuracy (%)")
    assert table.rows == (("kept 32", 2, "1 ± 0"), ("kept 64", 2, "3 ± 0"))


def test_a_row_must_fit_its_columns() -> None:
    with pytest.raises(DataError, match=r"table 't': a row of 1 cells under 2 columns"):
        Table("t", ("a", "b"), (("x",),))


@pytest.mark.parametrize(
    ("cell", "text"),
    [(3, "3"), (12345, "12,345"), (0.123456, "0.1235"), (1234.5, "1,234"), (math.nan, "–"), ("a", "a")],
)
def test_show(cell: object, text: str) -> None:
    assert show(cell) == text


# --- pictures ---------------------------------------------------------------------------------------------------------


def pixels(png: bytes) -> np.ndarray:
    from matplotlib.image import imread

    return imread(io.BytesIO(png))[..., :3]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_drawn_on_both_grounds_and_the_same_twice(kind: str) -> None:
    light, dark = pixels(draw(figure(kind))), pixels(draw(figure(kind), "dark"))
    assert light[0, 0].min() > 0.9
    assert dark[0, 0].max() < 0.2
    for picture in (light, dark):
        assert np.mean(np.any(picture != picture[0, 0], axis=-1)) > 0.005, "something is drawn"
    assert draw(figure(kind)) == draw(figure(kind))


REQUIRED = [
    (kind, key)
    for kind, payload in PAYLOADS.items()
    for key in payload
    if key not in {"key", "log_x", "errors", "baseline"}
]


@pytest.mark.parametrize(("kind", "key"), REQUIRED)
def test_a_payload_that_does_not_fit_is_an_error(kind: str, key: str) -> None:
    broken = figure(kind)
    del broken.payload[key]
    with pytest.raises(FileError, match=f"figure 'A {kind}': its payload does not fit kind '{kind}'.*{key}"):
        draw(broken)


def test_lengths_that_differ_and_unknown_kinds_are_errors() -> None:
    with pytest.raises(FileError, match="does not fit"):
        draw(figure("persistence", kept=[True]))
    with pytest.raises(FileError, match="does not fit"):
        draw(figure("hasse", edges=[[0, 9]]))
    with pytest.raises(FileError, match="unknown kind 'pie'; known: hasse"):
        draw(Figure("pie", "p", {}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [0.5]}, "1 weights, 3 values and 3 spectra for 3 edges and 3 nodes"),
        ({"values": [0.0, 0.5, math.nan]}, "nan is no finite number"),
        ({"eigenvalues": [[], [[1.0]], []]}, "not enough values to unpack"),
        ({"label": None, "weights": None}, "NoneType"),
    ],
)
def test_frames_of_a_network_that_do_not_fit_are_errors(change: dict, message: str) -> None:
    frames = copy.deepcopy(PAYLOADS["network"]["frames"])
    frames[1].update(change)
    with pytest.raises(FileError, match=f"does not fit kind 'network'.*{message}"):
        draw(figure("network", frames=frames))
    with pytest.raises(FileError, match="an edge ends at none of the 3 nodes"):
        draw(figure("network", edges=[[0, 1], [1, 2], [2, 3]]))


def test_a_removed_edge_is_drawn_otherwise_than_one_that_stays() -> None:
    frames = copy.deepcopy(PAYLOADS["network"]["frames"])
    stays = copy.deepcopy(frames)
    stays[1]["weights"] = frames[0]["weights"]
    assert draw(figure("network", frames=frames)) != draw(figure("network", frames=stays))


def test_the_part_of_the_filtration_that_counts_is_shaded() -> None:
    def shaded(**counted: object) -> int:
        picture = pixels(draw(figure("persistence", counted=counted or None)))
        return int(np.isclose(picture, picture[picture.shape[0] // 2, 0], atol=0.01).all(axis=-1).sum())

    none, half, whole = shaded(), shaded(up_to=0.5, sides=["rows"]), shaded(up_to=1.0, sides=["rows"])
    assert none > half > whole, "the more counts, the less of the ground stays as it was"


def test_series_of_one_size_stand_apart_and_the_others_where_they_belong() -> None:
    from matplotlib.figure import Figure as Canvas

    sizes = (100.0, 1000.0, 100.0)
    series = [{"label": str(i), "x": [size, size], "y": [0.5, 0.9]} for i, size in enumerate(sizes)]
    for apart in (False, True):
        canvas = Canvas()
        KINDS["scatter"](canvas, PAYLOADS["scatter"] | {"series": series, "apart": apart}, THEMES["light"])
        (axes,) = canvas.axes
        data = [axes.transData.transform((size, 0.5))[0] for size in sizes]
        shown = [
            container[0].get_transform().transform((size, 0.5))[0]
            for container, size in zip(axes.containers, sizes, strict=True)
        ]
        aside = np.subtract(shown, data)
        assert aside[1] == pytest.approx(0), "a size of its own stands where it belongs"
        assert aside[0] == pytest.approx(-aside[2]), "the others around their size"
        assert (abs(aside[0]) > 1) == apart
        low, high = axes.get_xlim()
        assert low < 100 < 1000 < high


def test_lines_show_their_marks_and_where_zero_is() -> None:
    plain, marks = draw(figure("lines")), [{"x": 0.5, "label": "paper"}]
    assert len({plain, draw(figure("lines", marks=marks)), draw(figure("lines", zero=True))}) == 3
    assert draw(figure("lines", marks=marks)) != draw(figure("lines", marks=[{"x": 0.6, "label": "paper"}]))
    assert draw(figure("lines", marks=[], zero=False)) == plain


@pytest.mark.parametrize("text", [r"$\frac{$", "$x", "_hidden", "\x1b[31m\x00", "<b>", "%d{}"])
def test_labels_are_shown_as_they_are(text: str) -> None:
    payload = copy.deepcopy(PAYLOADS["lines"])
    for series in payload["series"]:
        series["label"] = text
    payload["marks"] = [{"x": 0, "label": text}]
    drawn = draw(Figure("lines", "t", {**payload, "x_label": text, "y_label": text}))
    assert drawn != draw(Figure("lines", "t", payload | {"x_label": "", "y_label": ""}))
    assert draw(figure("bars", y_label=text, labels=[text, text + "2"], baseline_label=text)) != draw(figure("bars"))


# --- the page ---------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The elements and attributes that a browser would see."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


EVIL = "<script>alert(1)</script><img src=https://evil.example/x onerror=alert(2)>\"'><a href=http://evil.example>"


@pytest.fixture
def evil(tmp_path: Path) -> Page:
    """A page whose every string, from records, tables and figures, is an attack."""
    attack = Record(
        study=EVIL,
        task={EVIL: EVIL},
        seed=0,
        config={EVIL: EVIL},
        metrics={EVIL: Metric(1.0, 1, EVIL)},
        timings={EVIL: 1.0},
        data={EVIL: EVIL},
        notes=(EVIL,),
        versions={EVIL: EVIL},
    )
    store = RecordStore(tmp_path / EVIL.replace("/", ""))
    store.append(attack)
    figures = [
        figure("hasse", nodes=[{"x": 0, "y": 0, "label": EVIL}], edges=[], key=EVIL),
        figure("bars", y_label=EVIL, labels=[EVIL, "b"], baseline_label=EVIL),
        figure("lines", x_label=EVIL, y_label=EVIL, series=[{"label": EVIL, "x": [0], "y": [1]}]),
    ]
    figures = [Figure(each.kind, EVIL, each.payload, EVIL) for each in figures]
    tables = [Table(EVIL, (EVIL, EVIL), ((EVIL, EVIL),), EVIL)]
    out = tmp_path / "report.html"
    write_report(store.folder, out, title=EVIL, lead=EVIL, tables=tables, figures=figures, notes=[EVIL])
    return Page(out)


def test_no_string_becomes_markup(evil: Page) -> None:
    tags = {tag for tag, _ in evil.elements}
    assert tags.isdisjoint({"script", "a", "iframe", "object", "link", "base", "form"})
    attributes = {name for _, attributes in evil.elements for name in attributes}
    assert attributes <= {
        "lang", "charset", "name", "content", "class", "tabindex", "role", "aria-label", "scope", "media", "srcset",
        "src", "alt",
    }  # fmt: skip
    # Title twice, lead, table (title, columns, row, caption), figures (title, caption), notes, provenance (study,
    # version, setting), run (metric, unit, timing); the task and the setting's value are shown as JSON.
    assert evil.words.count(EVIL) == 2 + 1 + 6 + 6 + 2 + 4 + 3
    assert evil.words.count(json.dumps(EVIL)) == 1 + 2


def test_nothing_is_loaded_from_a_network(evil: Page) -> None:
    sources = [attributes[name] for _, attributes in evil.elements for name in ("src", "srcset") if name in attributes]
    assert len(sources) == 6
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert all("href" not in attributes for _, attributes in evil.elements)


def test_a_network_has_a_stepper_whose_data_cannot_become_markup(tmp_path: Path) -> None:
    payload = copy.deepcopy(PAYLOADS["network"])
    payload["nodes"][0]["label"] = payload["frames"][1]["note"] = payload["frames"][0]["label"] = EVIL
    payload["more"] = "left out"
    out = write_report([record()], tmp_path / "r.html", title="t", figures=[Figure("network", "n", payload)])
    page, text = Page(out), out.read_text()
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    assert scripts == [{"type": "application/json"}, {}], "the data, and the stepper once"
    assert {tag for tag, _ in page.elements}.isdisjoint({"a", "iframe", "object", "link", "base", "form"})
    data = text.split('<script type="application/json">')[1].split("</script>")[0]
    assert "<" not in data
    read = json.loads(data)
    assert read["nodes"][0]["label"] == read["frames"][1]["note"] == EVIL
    assert "more" not in read
    assert read["frames"][1]["weights"] == [0.5, -1.0, None]
    code = text.rsplit("<script>", 1)[1].split("</script>")[0]
    for loads in ("http", "import", "fetch", "src", "eval", "innerHTML", "outerHTML", "insertAdjacentHTML"):
        assert loads not in code
    plain = write_report([record()], tmp_path / "p.html", title="t", figures=[figure("lines")])
    assert "<script" not in plain.read_text(), "a page without a network has no script"


def test_the_style_refers_to_nothing(tmp_path: Path) -> None:
    text = write_report([record()], tmp_path / "r.html", title="t").read_text()
    assert "url(" not in text
    assert "@import" not in text
    assert "http" not in text


def test_the_page_says_what_it_was_given(tmp_path: Path) -> None:
    runs = [record(seed, kept=32) for seed in (0, 1)]
    runs.append(Record("s", {"seed": 2}, 2, {"lr": 0.2}, {}, notes=("metric lost",)))
    out = write_report(
        runs, tmp_path / "deep" / "r.html", title="The title", lead="Paper 2025", notes=["quick run"],
        tables=[Table("T", ("what", "ours"), (("acc", 0.98765),), "table caption")],
        figures=[figure(kind) for kind in KINDS],
    )  # fmt: skip
    page = Page(out)
    for text in (
        "The title",
        "Paper 2025",
        "quick run",
        "metric lost",
        "0.9877",
        "table caption",
        "0, 1, 2",
        "0.1, 0.2",
    ):
        assert text in page.words
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) == len(KINDS)
    assert all(f"A {kind} ({kind})." in image["alt"] for kind, image in zip(KINDS, images, strict=True))
    assert "series: a, b" in images[list(KINDS).index("lines")]["alt"]
    assert "small: not measured" in images[list(KINDS).index("bars")]["alt"]


def test_a_column_stands_to_the_right_if_all_of_it_are_numbers(tmp_path: Path) -> None:
    rows = (("a", 1, "1.5 ± 0.2", "3→2, 4→3: 1", "yes"), ("b", 2, "–", "3→2: 1", "–"), ("c", 0.5, "−3e-05", "", "no"))
    table = Table("T", ("what", "n", "mean", "most frequent", "more?"), rows)
    page = Page(write_report([record()], tmp_path / "r.html", title="t", tables=[table]))
    cells = [attributes.get("class", "") for tag, attributes in page.elements if tag == "td"]
    assert cells[:12] == ["number", "number", "", ""] * 3


def test_a_label_has_one_colour_on_a_page_as_long_as_there_are_colours() -> None:
    def labelled(*labels: str) -> Figure:
        return figure("lines", series=[{"label": label, "x": [0, 1], "y": [1, 2]} for label in labels])

    def looks(figures: list[Figure]) -> list[list[object]]:
        return [[each.get("colour") for each in one.payload["series"]] for one in figures]

    assert looks(with_shared_colours([labelled("none", "D"), labelled("D", "W")])) == [[0, 1], [1, 2]]
    assert looks(with_shared_colours([labelled(*"abcd"), labelled(*"efgh")])) == [[None] * 4, [None] * 4]
    first, second = with_shared_colours([labelled("none", "D"), labelled("D")])
    assert draw(second) != draw(labelled("D"))
    assert draw(first) == draw(labelled("none", "D"))
    with pytest.raises(FileError, match="does not fit kind 'lines'"):
        draw(figure("lines", series=[{"label": "a", "x": [0], "y": [1], "colour": "red"}]))


def test_a_point_without_a_place_is_a_gap() -> None:
    whole, without = ([{"label": "a", "x": x, "y": [1, 2, 3]}] for x in ([0, 1, 2], [0, None, 2]))
    assert draw(figure("lines", series=without)) != draw(figure("lines", series=whole))


def test_a_torn_line_is_told_on_the_page(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    store.append(record())
    with store.path.open("a") as file:
        file.write('{"schema": "jali')
    assert "the last line is torn (16 bytes)" in Page(write_report(tmp_path, tmp_path / "r.html", title="t")).words


def test_a_failing_report_leaves_the_old_one(tmp_path: Path) -> None:
    out = write_report([record()], tmp_path / "r.html", title="old")
    before = out.read_bytes()
    with pytest.raises(FileError, match="unknown kind"):
        write_report([record()], out, title="new", figures=[Figure("pie", "p", {})])
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


def test_a_lone_surrogate_does_not_break_the_page(tmp_path: Path) -> None:
    assert "t?" in Page(write_report([record()], tmp_path / "r.html", title="t\ud800")).words


def test_markdown_shows_every_cell_and_breaks_no_row():
    table = Table("a|b", ("x", "y"), (("one|two", 1234.5), ("three\nfour", 2)), "why")
    lines = markdown(table).splitlines()
    assert lines[0] == "**a|b**"
    assert lines[2:6] == ["| x | y |", "|---|---|", "| one\\|two | 1,234 |", "| three\ufffdfour | 2 |"]
    assert lines[-1] == "why"


@pytest.mark.parametrize("options", [{}, {"side": "rows"}, {"span": "full"}, {"side": "columns", "span": "full"}])
def test_the_part_said_to_count_is_the_part_that_made_the_scores(options: dict[str, str]) -> None:
    import torch

    import jali
    from jali.maths.persistence import filtration
    from jali.site import sites
    from jali.studies.structure import persistence_caption, persistence_payload
    from jali.view import read

    torch.manual_seed(0)
    model = torch.nn.LSTM(3, 12)
    view, plan = read(model, sites(model)[0]), jali.plan(model, "lattice", 0.5, options=options)
    payload = persistence_payload(view, plan.sites[0], plan.criterion, plan.options)
    density, counted = np.array(payload["density"]), payload["counted"]
    levels = filtration(view.influence(), density[density <= counted["up_to"]])
    want = np.mean([levels.persistence(side) for side in counted["sides"]], axis=0)
    assert np.allclose(payload["scores"], want)
    assert " and of ".join(counted["sides"]) in persistence_caption(payload)
    assert sum(payload["kept"]) == 6

    other = jali.plan(model, "lattice", 0.5, options={"form": "graded"}), jali.plan(model, "magnitude", 0.5)
    for plan in other:
        payload = persistence_payload(view, plan.sites[0], plan.criterion, plan.options)
        assert payload["counted"] is None
        assert "does not come from the left panel" in persistence_caption(payload)


@settings(deadline=None, max_examples=50)
@given(
    st.integers(20, 200),
    st.lists(
        st.lists(st.text("0123456789 ±.", min_size=1, max_size=14), min_size=3, max_size=3), min_size=1, max_size=4
    ),
)
def test_no_cell_is_cut_in_a_narrow_terminal(width: int, rows: list[list[str]]) -> None:
    from rich.console import Console

    from jali.report.terminal import print_table

    rows = [[f"x{cell}x" for cell in row] for row in rows]  # spaces at the ends may go
    shown = io.StringIO()
    table = Table("T", ("name", "a long header", "b", "c"), tuple(("row", *row) for row in rows))
    print_table(table, Console(file=shown, width=max(width, 40)))
    text = shown.getvalue()
    assert all(cell in text for row in rows for cell in row)
    assert max(map(len, text.splitlines())) <= max(width, 40)
    assert text.count("T (more columns)") == text.count("┏") - 1
