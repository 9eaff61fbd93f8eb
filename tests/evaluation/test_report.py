"""The report page: whole, offline, in the right orientation, honest in words, tolerant of half a run."""

import base64
import html
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from made_scores import STORED_RECIPE, made_scores
from made_volumes import head, made_volume, save
from refusals import refuses
from voxlate.base.files import read_json, write_json
from voxlate.base.messages import message
from voxlate.evaluation.compare import compare
from voxlate.evaluation.reports.case_pictures import (
    TILE,
    CaseImage,
    CaseImages,
    ColourScale,
    read_case,
)
from voxlate.evaluation.reports.charts import score_charts
from voxlate.evaluation.reports.page import report, write_comparison
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.scans.formats.io import write_volume
from voxlate.scans.images import pictures
from voxlate.scans.images.grid import Grid, canonical
from voxlate.scans.images.ranges import range_for
from voxlate.training.naive import fit

RECIPE = """# T1 to CT. voxlate train t1_to_ct --data PREPARED --out RUN
title = "T1 to CT <fast>"
net = { kind = "unet", width = 32 }
[intensity]
ct = { kind = "window", low = -1000, high = 1000 }
"""
WARNED = {"starter": "By a starter.", "border": "A border."}


class Page:
    """A page's links, texts in place of images, and words."""

    def __init__(self, source):
        self.source = source
        self.links = re.findall(r'(?:href|src)="([^"]*)"', source)
        self.alts = [html.unescape(alt) for alt in re.findall(r'<img[^>]* alt="([^"]*)"', source)]
        shown = re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", source, flags=re.DOTALL)
        self.text = " ".join(html.unescape(shown).split())


def page_of(scored, *to):
    """The page of a run or of scored images."""
    return Page(report(scored, *to).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A run, and scored syntheses of two made-up heads with spread, naive baselines and provenance."""
    folder = tmp_path_factory.mktemp("scored")
    write_out(folder, write_run(folder))
    return folder


@pytest.fixture
def run(scored, tmp_path):
    """A run that a test may change."""
    return shutil.copytree(scored / "run", tmp_path / "run")


@pytest.fixture
def out(scored, run, tmp_path):
    """Syntheses that a test may change."""
    shutil.copytree(scored / "cohort", tmp_path / "cohort")
    return shutil.copytree(scored / "out", tmp_path / "out")


def write_run(tmp_path):
    folder, lines = tmp_path / "run", []
    stated = {"seed": 0, "recipe": STORED_RECIPE, "data": {"cases": 12}}
    write_json(folder / "provenance.json", stated)
    (folder / "recipe.toml").write_text(RECIPE)
    for step in range(1, 200):
        head = {"stage": "final", "step": step}
        lines.append({**head, "turn": "net", "loss": {"total": 1 / step}, "lr": 1e-3})
        if step % 20 == 0:
            lines.append({**head, "validation": {"mae": 1 / step}})
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 20')
    return folder


def write_out(tmp_path, run):
    shape, grid = (12, 40, 32), np.diag([1.0, 1.0, 3.0, 1.0])
    warnings = [message(code, text).table for code, text in WARNED.items()]
    cases = []
    for number in range(2):
        ct = head(number, shape, contrast=200)
        case = {
            "ct": made_volume(ct, affine=grid),
            "t1": made_volume(np.sqrt(ct + 1300), "t1", "a.u.", grid),
        }
        for name, volume in case.items():
            write_volume(tmp_path / f"cohort/head{number}/{name}.nii.gz", volume)
        made = tmp_path / f"out/head{number}"
        save(made / "ct.nii.gz", gaussian_filter(ct, 1), affine=grid)
        save(made / "ct_std.nii.gz", np.abs(gaussian_filter(ct, 1) - ct) / 2, affine=grid)
        inputs = {"t1": {"path": f"../../cohort/head{number}/t1.nii.gz"}}
        write_json(made / "provenance.json", {"inputs": inputs, "warnings": warnings})
        cases.append(({name: canonical(volume) for name, volume in case.items()}, None))
    write_json(tmp_path / "out/provenance.json", {"run": "../run", "sampler": "ddim", "steps": 16})
    naive = fit(cases[:1], ["t1"], ["ct"], {"ct": range_for("HU"), "t1": range_for("a.u.")})
    evaluate(tmp_path / "out", tmp_path / "cohort", naive=naive)


def test_names_cannot_break_the_page_and_scores_at_fault_are_refused(out):
    found = read_json(out / "metrics.json")
    found["without_truth"] = ["</li><script>x</script>"]
    write_json(out / "metrics.json", found)
    source = page_of(out).source
    assert "<script>x" not in source
    assert "&lt;script&gt;x" in source
    (out / "metrics.json").write_text("[]")
    with refuses(r"metrics\.json"):
        report(out)


def test_the_page_shows_verdict_and_numbers_and_needs_nothing_outside_itself(scored):
    page = page_of(scored / "out", scored / "page.html")
    assert page.links
    assert all(link.startswith(("data:image/", "#")) for link in page.links)
    assert not re.search(r"https?://|@import|url\(", page.source)
    text, document = page.text, read_json(scored / "out/metrics.json")
    said, head = document["verdict"]["ct"], page.source.partition("<nav")[0]
    shown = re.search(rf'<p class="verdict {said["outcome"]}">(.*)</p>', head)
    assert shown
    assert html.unescape(shown[1]) == said["sentence"]
    answers = document["modalities"]["ct"]["answers"]
    for answer in ("synthesis", "mean image", "copy of t1", "intensity table"):
        ssim = answers[answer]["ssim_2d"]
        assert answer in text
        assert f"{ssim['mean']:.3f} ± {ssim['sd']:.3f}" in text
    for part in ("T1 to CT <fast>", "Not a medical device", "left is on the right"):
        assert part in text


def opened(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def test_pictures_are_in_millimetres():
    slices = {"axial": np.ones((40, 32)), "coronal": np.ones((12, 32))}
    image = CaseImage("scan", "scan", slices, ColourScale(0, 1, "gray", "HU"))
    case = CaseImages("case", Grid((12, 40, 32), np.diag([1.0, 1.0, 3.0, 1.0])), [image])
    sheet = case.draw({})
    widths = (np.asarray(opened(sheet["uri"]).convert("L")) == 255).sum(1)
    assert {*widths} == {0, round(TILE * 32 / 40), round(TILE * 32 / 36)}


def test_an_image_and_its_truth_are_shown_in_one_window(out):
    case = read_case(out, read_json(out / "metrics.json"), "head1", "ct")
    roles = ["source", "synthesis", "truth", "error", "spread"]
    assert [image.role for image in case.images] == roles
    assert case.images[1].scale == case.images[2].scale


def test_syntheses_without_scores_are_shown_too_with_the_source_that_the_provenance_names(
    out, tmp_path
):
    source = tmp_path / "cohort/head0/t1.nii.gz"
    moved = source.rename(tmp_path / "elsewhere.nii.gz")
    write_json(out / "head0/provenance.json", {"inputs": {"t1": {"path": str(moved)}}})
    (out / "metrics.json").unlink()
    page = page_of(out)
    assert "A border." in page.text
    assert "head0: source t1, synthesis ct, spread standard deviation" in page.alts


def test_a_run_shows_its_curves_and_recipe(run):
    page = page_of(run)
    for part in ("Training loss", "Validation", "last 0.005556", 'kind = "unet"'):
        assert part in page.text


# pictures


def test_radiological_convention_puts_the_patients_left_on_the_right():
    volume = np.zeros((3, 4, 5))
    volume[2, 3, 0] = 1  # superior, anterior, and left: index W grows to the right
    for plane, level, column in (("axial", 2, -1), ("coronal", 3, -1), ("sagittal", 0, 0)):
        assert pictures.plane_of(volume, plane, level)[0, column] == 1


# charts


def svg_of(chart):
    """The picture of a chart, which the page holds as an image."""
    return base64.b64decode(chart["uri"].partition(",")[2]).decode()


def test_scores_have_charts_of_patients_of_the_means_of_regions_and_of_coverage():
    ours = {"mae": [5.0, 6, 8, 9], "coverage": [0.9] * 4, "bone.coverage": [0.7, 0.8, 0.7, 0.8]}
    ours |= {"bone.mean": [310.0, 410, 510, 610], "bone.truth_mean": [300.0, 400, 500, 600]}
    values = {"synthesis": ours, "copy": {"mae": [9.0, 9, 9, 9]}}
    stated = {"regions": {"bone": ""}, "nominal_coverage": 0.9}
    patients, agreement, coverage = score_charts(made_scores({"ct": values}, **stated))
    assert all("<svg" in svg_of(chart) for chart in (patients, agreement, coverage))
    assert [name for name, _ in agreement["lines"]] == ["bone: bias +10, limits +10 to +10"]
    assert ">bone</text>" in svg_of(coverage)
    # three patients are the fewest of a plot
    few = {"synthesis": {"mae": [5.0, 6.0]}, "copy": {"mae": [9.0, 9.0]}}
    assert score_charts(made_scores({"ct": few})) == []


def test_a_comparison_shows_each_method_beside_the_truth(out):
    again = shutil.copytree(out, out.with_name("again"))
    write_comparison(compare([out, again]), out.with_name("methods.html"))
    page = Page(out.with_name("methods.html").read_text(encoding="utf-8"))
    (alt,) = (alt for alt in page.alts if "head1" in alt)
    methods = "out, synthesis, out, error, again, synthesis, again, error"
    assert alt == f"head1: source t1, truth ct, {methods}"
