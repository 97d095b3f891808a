"""Analyses in the report: the numbers are those that were saved, gaps have words, and damage is one clear error."""

import copy
import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import jali
from jali.dynamics import Recurrence, exponent_curve
from jali.errors import DataError, FileError
from jali.maths.rate_distortion import gaussian_rate
from jali.plain import parse_json
from jali.report.analysis import analysis_section, saved_analyses
from jali.report.plots import draw
from jali.report.tables import markdown
from jali.studies.runner import regenerate_report
from jali.view import read


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(3, 8, 2, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Tagger()


@pytest.fixture(scope="module")
def found(model):
    data = [(torch.randn(60, 5, 3, generator=torch.Generator().manual_seed(1)), torch.arange(60) % 4)]
    return jali.analyze(model, data, plan=jali.plan(model, "magnitude", 0.5))


def table(section, title):
    return next(table for table in section.tables if table.title.startswith(title))


def figure(section, title):
    return next(figure for figure in section.figures if figure.title.startswith(title))


# --- what analyze adds ---------------------------------------------------------------------------------------------------


def test_the_curve_under_thresholds_is_that_of_the_part(model, found):
    x = torch.randn(60, 5, 3, generator=torch.Generator().manual_seed(1))[:4].numpy()
    recurrence = Recurrence(read(model, jali.sites(model)[0]))
    dynamics = found.site("rnn.l0").dynamics
    thresholds = dynamics["tau"]
    assert thresholds[0] == 0.0
    assert thresholds == sorted(set(thresholds))
    want = exponent_curve(recurrence, x.astype(np.float64), thresholds)
    np.testing.assert_allclose(dynamics["largest exponent at tau"], want, atol=1e-6)
    weights = np.abs(recurrence.weights)
    np.testing.assert_allclose(dynamics["weights below tau"], [(weights < tau).mean() for tau in thresholds])


def test_it_is_said_what_the_curve_is_measured_on(model, found):
    (note,) = (each for each in found.site("rnn.l0").notes if each.startswith("largest exponent at tau"))
    assert "on 4 of the sequences over 5 steps from a zero state" in note
    assert note.endswith("need not agree with the spectrum, of 16 and up to 5 steps")
    assert note in str(found)
    dynamics = found.site("rnn.l0").dynamics
    assert dynamics["largest exponent at tau"][0] != dynamics["largest exponent"]
    few = str(jali.analyze(model, [torch.randn(3, 120, 3)]))
    assert "on 3 of the sequences over 50 steps from a zero state" in few
    assert "the spectrum, of 3 and up to 100 steps" in few


def test_the_rate_falls_to_zero_at_the_variance(found):
    for site in found.sites:
        at, rate = site.pruning["curve D"], site.pruning["curve R(D)"]
        assert at[-1] == pytest.approx(site.pruning["variance"])
        assert rate[-1] == pytest.approx(0.0, abs=1e-9)
        assert all(a > b >= 0 for a, b in itertools.pairwise(rate))
    assert gaussian_rate([1.0], 0.25).rate == pytest.approx(math.log(2))


def test_a_threshold_at_which_the_network_diverges_has_a_note():
    """Two weights cancel exactly; without the smaller one a relu unit grows beyond all numbers."""
    layer = nn.RNN(1, 2, nonlinearity="relu", bias=False, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.tensor([[1.0], [2.0]]))
        layer.weight_hh_l0.copy_(torch.tensor([[2.0**100, -(2.0**99)]]).expand(2, 2))
    x = torch.zeros(2, 40, 1, dtype=torch.float64)
    x[:, 0] = 1.0
    found = jali.analyze(layer, x)
    site = found.site("l0")
    assert site.dynamics["largest exponent at tau"][0] is not None
    assert site.dynamics["largest exponent at tau"][-1] is None
    assert any(note.startswith("largest exponent at tau 1.268e+30: ") for note in site.notes)
    assert jali.Analysis.from_json(found.to_json()) == found
    assert "nan" not in str(found)


# --- the section ---------------------------------------------------------------------------------------------------------


def test_the_tables_show_the_saved_numbers(found):
    section = analysis_section(found, "analysis.json")
    site = found.site("rnn.l1")
    assert table(section, "Analysis of Tagger").rows[1][:2] == ("rnn.l1", "GRU of 8")
    assert table(section, "Analysis of Tagger").rows[1][3] == site.dynamics["largest exponent"]
    q = site.modularity
    assert table(section, "Modularity").rows[1][1:4:2] == (q["Q"], q["Q after"])
    rows = {row[:2]: row[2:] for row in table(section, "Mutual information").rows}
    assert not any(key.endswith(" after") for _, key in rows)
    name = next(key for key in found.task if not key.endswith(" after"))
    assert rows["the task", name] == (found.task[name], found.task[f"{name} after"])
    assert rows["rnn.l1", "I(X; h_T) ksg"][1] == site.information["I(X; h_T) ksg after"]
    point = site.pruning
    wanted = (point["distortion"], point["variance"], point["distortion"] / point["variance"])
    assert table(section, "Distortion").rows[1][1:4] == pytest.approx(wanted)
    spectrum = figure(section, "Lyapunov").payload["series"]
    assert [one["label"] for one in spectrum] == ["rnn.l0", "rnn.l1"]
    assert spectrum[1]["y"] == site.dynamics["exponents"]
    assert figure(section, "Largest").payload["series"][1]["y"] == site.dynamics["largest exponent at tau"]
    assert figure(section, "Modularity").payload["values"][2:] == [q["Q"], q["Q after"]]
    assert figure(section, "Rate").payload["series"][3]["x"] == [100 * wanted[2]]
    assert all(draw(one).startswith(b"\x89PNG") for one in section.figures)
    assert all(note.startswith("rnn.l") for note in section.notes)


def test_without_data_and_plan_little_is_shown_and_said(model):
    section = analysis_section(jali.analyze(model), "a.json")
    assert [one.title for one in section.tables] == ["Analysis of Tagger (a.json, seed 0)", "Modularity"]
    assert section.figures == ()
    assert section.notes[0] == "without data nothing is said about dynamics and information"
    assert table(section, "Analysis").rows[0][3:] == ("–",) * 4


def test_infinite_exponents_are_counted_and_not_drawn():
    layer = nn.RNN(3, 4, batch_first=True)
    nn.init.zeros_(layer.weight_hh_l0)
    section = analysis_section(jali.analyze(layer, torch.randn(2, 5, 3)), "a.json")
    assert table(section, "Analysis").rows[0][3] == "−∞"
    assert section.figures == ()  # nothing finite is left
    with torch.no_grad():
        layer.weight_hh_l0[0, 0] = 0.5
    section = analysis_section(jali.analyze(layer, torch.randn(2, 5, 3)), "a.json")
    assert "3 exponents of −∞ are not drawn" in figure(section, "Lyapunov").caption
    assert figure(section, "Lyapunov").payload["series"][0]["y"][1:] == [None] * 3


def leaves(value, path=()):
    """Paths of all parts of a JSON value."""
    yield path
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(part, (*path, key))


@settings(max_examples=100)
@given(data=st.data())
def test_a_damaged_analysis_is_shown_or_is_one_clear_error(found, data):
    body = json.loads(found.to_json())
    path = data.draw(st.sampled_from([path for path in leaves(body) if path]))
    junk = data.draw(st.sampled_from([None, "x", -1, 1e300, "inf", "-inf", [], {}, [[1]], {"a": "b"}, True]))
    target = body
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = copy.deepcopy(junk)
    whole, problem = analysis_section(found, "a.json").figures, "none"
    try:
        section = analysis_section(jali.Analysis.from_json(json.dumps(body)), "a.json")
        for one in section.figures:
            if one not in whole:
                draw(one)
        markdowns = [markdown(one) for one in section.tables]
        assert all(markdowns)
    except FileError as error:
        problem = str(error)
    assert problem
    assert len(problem) < 500


# --- the folder ----------------------------------------------------------------------------------------------------------


def test_a_folder_of_analyses_becomes_a_page(found, model, tmp_path, capsys):
    found.save(tmp_path / "analysis.json")
    jali.plan(model, "magnitude", 0.5).save(tmp_path / "plan.json")
    (tmp_path / "broken.json").write_text("{")
    names, problems = saved_analyses(tmp_path)
    assert names == [("analysis.json", found)]
    assert problems[0].startswith("broken.json could not be read as JSON")
    page = regenerate_report(tmp_path).read_text(encoding="utf-8")
    assert capsys.readouterr().out.count("Mutual information") == 1
    for text in (
        "Analysis of Tagger (analysis.json, seed 0)",
        "Lyapunov spectrum",
        "Rate and distortion",
        "broken.json",
    ):
        assert text in page
    assert page.count("<img") == 4
    found.save(tmp_path / "later.json")
    page = regenerate_report(tmp_path).read_text(encoding="utf-8")
    assert "Lyapunov spectrum (analysis.json)" in page
    assert "Lyapunov spectrum (later.json)" in page


def test_names_from_a_file_are_escaped(found, tmp_path):
    body = parse_json(found.to_json())
    body["model"] = body["sites"][0]["name"] = "<script>alert(1)</script>"
    (tmp_path / "a.json").write_text(json.dumps(body))
    page = regenerate_report(tmp_path).read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_folders_without_anything_and_unknown_versions(found, tmp_path):
    with pytest.raises(DataError, match="holds no records; give the folder that a study, demo or analysis wrote to"):
        regenerate_report(tmp_path)
    (tmp_path / "a.json").write_text(found.to_json().replace('"schema": 1', '"schema": 9'))
    with pytest.raises(FileError, match=r"a\.json: this is no analysis of this version"):
        regenerate_report(tmp_path)


def test_a_page_of_saved_analyses_needs_no_torch(found, tmp_path):
    found.save(tmp_path / "analysis.json")
    code = (
        "import sys; from jali.studies.runner import regenerate_report; regenerate_report(sys.argv[1]); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)
