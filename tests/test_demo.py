"""The main job, end to end: train, prune by the lattice, fold, compact, fine-tune, compare, report."""

import base64
import re

from jali.runs.store import RecordStore
from jali.studies.demo import CRITERIA, run_demo


def test_the_demo_trains_prunes_repairs_compares_and_reports(tmp_path, capsys):
    run_demo("digits", tmp_path, 0)
    records = {record.task["what"]: record for record in RecordStore(tmp_path).records()}
    assert set(records) == {"dense", *CRITERIA, "small"}
    dense = records["dense"].metrics
    assert dense["accuracy tuned"].value > 0.9
    assert dense["accuracy tuned"].n == 360
    for name in CRITERIA:
        metrics = records[name].metrics
        assert metrics["accuracy folded"].value > metrics["accuracy cut"].value + 0.1
        assert metrics["units"].value == 32
        assert (
            metrics["parameters"].value == records["small"].metrics["parameters"].value < dense["parameters"].value / 3
        )
        assert metrics["macs"].value < metrics["macs of dense"].value
        assert records[name].timings["task"] > 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    pictures = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    assert len(pictures) == 6  # persistence, Hasse diagram, accuracy against size; light and dark
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    printed = capsys.readouterr().out
    assert f"{100 * dense['accuracy tuned'].value:.2f}" in printed
    assert "small dense" in printed
