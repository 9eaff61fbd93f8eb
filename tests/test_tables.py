"""Tables of the papers: a page prints what today's lines hold, and a line of another cohort or recipe is not printed."""

import json
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import figures
import tables
from rows import every_row
from tables import Row, Table

MAE, SSIM = ("mae", "MAE", 2), ("ssim_2d", "SSIM", 3)
PLACES = "<!-- tables begin -->\n<!-- tables end -->\n"
SCORE = re.compile(r"(?:MAE|SSIM|PSNR|LPIPS|Dice|ratio|distance)\b[^\n|]{0,30}?\d*\.\d+")
ROW = Row("Pix2Pix", "pix2pix_swi_mra_small", ("tof",), seeds=1)
SMALL = Table(
    phantoms={"cases": 3, "size": (48, 48, 8), "modalities": ("swi", "tof")},
    preparation={"shares": (1, 1, 1)},
    scoring={"mask": "whole"},
    minutes=0.02,
    columns=(MAE, SSIM),
    rows=(ROW,),
    figure={"targets": ["tof"], "windows": {"tof": (0, 220)}},
)


@pytest.mark.parametrize("paper", tables.TABLES)
def test_a_page_prints_todays_lines_and_no_other_score(paper):
    page = (tables.PAGES / f"{paper}.md").read_text()
    assert tables.BLOCK.findall(page) == [tables.printed(paper)]
    outside = tables.BLOCK.sub("", page)
    assert SCORE.findall(outside) == []
    heads = re.findall(r"^(\|.*\|)\n\|---", outside, flags=re.M)
    assert [head for head in heads if re.search(r"MAE|SSIM|PSNR|LPIPS|Dice", head)] == []
    assert len(page.split()) <= 1000


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Runs the program on a table of one row in a folder of its own; gives its page and the number of its lines."""
    page, results = tmp_path / "small.md", tmp_path / "tables.jsonl"
    page.write_text(PLACES)
    monkeypatch.setattr(tables, "PAGES", tmp_path)
    monkeypatch.setattr(tables, "RESULTS", results)
    monkeypatch.setattr(tables, "PILOT", 2)

    def run(table, *words):
        monkeypatch.setattr(tables, "TABLES", {"small": table})
        tables.cohort_digest.cache_clear()
        monkeypatch.setattr(sys, "argv", ["tables.py", str(tmp_path / "work"), *words])
        tables.main()
        lines = results.read_text().splitlines() if results.exists() else []
        return page.read_text(), len(lines)

    yield run
    tables.cohort_digest.cache_clear()


def test_a_row_is_measured_once_and_printed_while_its_cohort_and_recipe_are_todays(small, tmp_path):
    page, lines = small(SMALL, "--minutes", "0")
    assert ("|Pix2Pix||0/1|not measured|" in page, lines) == (True, 0)
    page, lines = small(SMALL)
    assert re.search(r"\|Pix2Pix\|0.43 M\|1/1\|\d+\.\d\d\|", page)
    assert "|*copy of swi*|" in page
    assert lines > 2
    assert small(SMALL) == (page, lines)
    scans, images, errors = figures.lines_of_figure(tmp_path / "work" / "small", SMALL)
    assert [tile.title for tile in scans] == ["swi", "tof"]
    clipped = [tile.image.clip(0, 220) for tile in (images[0], scans[1])]
    np.testing.assert_allclose(errors[0].image, clipped[0] - clipped[1])
    figures.write(figures.drawn([scans, images, errors], 1.0), tmp_path / "small.png")
    assert Image.open(tmp_path / "small.png").width > 200
    others = [
        replace(SMALL, phantoms={**SMALL.phantoms, "seed": 1}),
        replace(SMALL, scoring={"mask": "body"}),
        replace(SMALL, rows=(replace(ROW, changes={"net.width": "8"}),)),
    ]
    for other in others:
        page, now = small(other, "--minutes", "0")
        assert ("|Pix2Pix||0/1|not measured|" in page, now) == (True, lines)
    assert "|*copy of swi*|" in page  # whose cohort and scores are the same


@every_row("best, tried", [(1.0, 4), (4.0, 5), (16.0, 7), (0.25, 6)])
def test_learning_rates_are_widened_while_the_best_is_at_an_end(best, tried, tmp_path, monkeypatch):
    rates = []

    def trained(work, row, minutes, rate, seed):
        rates.append(rate)
        return [], {}

    def scored(*_):
        error = abs(rates[-1] - best)
        return {"tof": {tables.SYNTHESIS: {"mae": {"mean": error}}}}

    monkeypatch.setattr(tables, "trained", trained)
    monkeypatch.setattr(tables, "scored", scored)
    assert tables.tuned_rate(tmp_path, SMALL, ROW) == best
    assert len(rates) == tried
    assert tables.tuned_rate(tmp_path, SMALL, ROW) == best
    assert len(rates) == tried  # of the first time


def test_cells_hold_mean_deviation_and_range_and_the_orders_are_those_of_the_scores():
    lines = [{"scores": {"mae": [value, 0.5]}} for value in (2.0, 4.0)]
    assert tables._cell(lines, MAE) == "3.00±0.50(2.00–4.00)"
    assert tables._cell(lines[:1], SSIM) == ""
    found = [*tables._orders({"a": 2.0, "b": 1.0}, {"a": 1.0, "b": 2.0})]
    assert found == ["paper: b < a", "here: a < b"]


def test_the_time_of_a_step_is_that_between_reports_of_its_stage(monkeypatch):
    times = iter([10.0, 12.0, 16.0, 30.0, 31.0])
    monkeypatch.setattr(tables, "time", SimpleNamespace(process_time=lambda: next(times)))
    clock = tables.Clock()
    for name, done in (("first", 1), ("first", 2), ("first", 4), ("final", 1), ("final", 3)):
        clock(name, done, 4, {})
    assert clock.seconds_a_step == {"first": 2.0, "final": 0.5}
    assert clock.seconds == 7.0


def test_every_line_states_its_digests_its_commit_and_at_least_one_score():
    for text in tables.RESULTS.read_text().splitlines():
        line = json.loads(text)
        assert {"table", "row", "target", "cohort", "recipe", "commit"} <= line.keys()
        assert line["scores"]
