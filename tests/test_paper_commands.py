"""The commands on the pages of docs/papers run as they are written: on small phantoms, in few steps.

Later words of a command line count, so that each test appends its sizes to the page's own words.
"""

import re
import shlex
import shutil
import sys
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tables
from dicom_slices import DESCRIPTIONS, write_series
from pretrained import SMALL, written
from rows import every_row, slow
from test_recipes import narrow
from voxlate.anatomy.phantom_cohort import write_cohort
from voxlate.base.option import pairs
from voxlate.exchange import published
from voxlate.exchange.published import layout
from voxlate.scans.formats.io import read_volume, write_volume
from voxlate.science.nets.interface import Channels
from voxlate.science.nets.lpips import Lpips
from voxlate.science.nets.xmodality_unets import ADM
from voxlate.training import recipe as recipes

PAGES = Path(__file__).resolve().parents[1] / "docs" / "papers"
BLOCK = re.compile(r"^```\n(.*?)^```$", flags=re.M | re.S)
PAPERS = ("mrdpm", "xmodality", "lyu_wang", "umm_csgm", "make_a_volume")
MOST = (4, 32, 32)  # voxels of a patch along each axis
LESS = {
    "--cases": ["--cases", 4],
    "--size": ["--size", 48, 48, 8],
    "--shares": ["--shares", 0.5, 0.25, 0.25],
    "--spacing-mm": ["--spacing-mm", 4, 4, 8],
    "--matrix": ["--matrix", 48, 48, 8],
    "--samples": ["--samples", 2],
}
ELSEWHERE = {"bspline": "rigid"}  # takes minutes
CONTRASTS = {name: name for name in ("flair", "t1", "t2")} | {"t1c": "t1ce"}
COHORTS = {  # what a page calls a cohort: its phantoms' modalities and the places of their files
    ("mrdpm", "COHORT"): {
        name: f"{{case}}/{name}.nii.gz" for name in ("ncct", "cta1", "cta2", "cta3", "tmax")
    },
    ("xmodality", "TOPCOW"): {
        "tof": "imagesTr/topcow_mr_{case}_0000.nii.gz",
        "cta": "imagesTr/topcow_ct_{case}_0000.nii.gz",
    },
    ("umm_csgm", "BRATS"): {
        ours: f"HGG/{{case}}/{{case}}_{theirs}.nii.gz" for ours, theirs in CONTRASTS.items()
    },
    ("make_a_volume", "COHORT"): {name: f"{{case}}/{name}.nii.gz" for name in ("swi", "tof")},
    ("make_a_volume", "RIRE"): {
        "t1": "patient_{case}/mr_T1/t1.mha",
        "t2": "patient_{case}/mr_T2/t2.mha",
    },
}


def blocks(page):
    """The blocks of a page: the words of each of their commands."""
    text = (PAGES / f"{page}.md").read_text()
    return [
        [
            shlex.split(line, comments=True)
            for line in block.replace("\\\n", " ").splitlines()
            if line.strip()
        ]
        for block in BLOCK.findall(text)
    ]


def on_phantoms(page):
    """The block of a page that trains small rows on phantoms."""
    (found,) = (block for block in blocks(page) if block[0][:2] == ["voxlate", "phantom"])
    return found


def heads(out, cases=4, **options):
    """Phantoms, which are gone once they are used."""
    folder = out.parent / f"{out.name}_heads"
    options = {"size": (48, 48, 8), **options}
    yield from write_cohort(folder, cases=cases, **options)
    shutil.rmtree(folder)


def write_scans(out, places):
    """Four phantoms as the files of a public data set."""
    for head in heads(out, size=(64, 64, 24), modalities=[*places], lesion="stroke"):
        for modality, place in places.items():
            path = out / place.format(case=head.name[-3:])
            path.parent.mkdir(parents=True, exist_ok=True)
            write_volume(path, read_volume(head / f"{modality}.nii.gz", modality))


def write_gold(out):
    """Four phantoms as DICOM series of the Gold Atlas."""
    for head in heads(out, modalities=["t2", "ct"]):
        for modality, kind in (("t2", "MR"), ("ct", "CT")):
            volume = read_volume(head / f"{modality}.nii.gz")
            tags = {"Modality": kind, "SeriesDescription": DESCRIPTIONS[modality]}
            tags |= {"PatientID": head.name, "PatientName": head.name}
            write_series(volume, out / head.name, kind, **tags)


def write_alexnet(out):
    """Random weights of LPIPS."""
    draw = torch.Generator().manual_seed(0)
    state = Lpips().state_dict()
    save_file({key: torch.rand(one.shape, generator=draw) for key, one in state.items()}, out)


def write_adm(out):
    """Random weights of a narrow ADM in the layout of the authors' file."""
    net = ADM(width=8).build(Channels(images={"image": 1}, state=1, out=1, noisy=True))
    save_file({key: torch.rand(slot.shape) / 100 for key, slot in layout(net).items()}, out)


FILES = {
    **{key: partial(write_scans, places=places) for key, places in COHORTS.items()},
    ("lyu_wang", "GOLD"): write_gold,
    ("xmodality", "ADM"): write_adm,
    ("mrdpm", "ALEXNET"): write_alexnet,
    ("make_a_volume", "KL_F4"): written,
}


@pytest.fixture
def run(voxlate, tmp_path, monkeypatch):
    """Runs the words of a page's command with small sizes, in an empty folder; gives what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(published, "NETWORK", replace(published.NETWORK, **SMALL))
    read = published.read_weights
    monkeypatch.setattr(
        published, "read_weights", lambda path, name, _: read(path, name, {"net.width": 8})
    )
    said = []

    def by_voxlate(*words):
        texts = [ELSEWHERE.get(str(word), str(word)) for word in words]
        answer = voxlate(*_less(texts)).done()
        said.append(answer.out + answer.err)

    def one(page, words):
        for (of_page, name), write in FILES.items():
            if of_page == page and name in " ".join(words).split() and not Path(name).exists():
                write(tmp_path / name)
        said.clear()
        if words[0] == "voxlate":
            by_voxlate(*words[1:])
        else:
            assert words[:2] == ["python", "benchmarks/tables.py"]
            shorten_tables()
            monkeypatch.setattr(sys, "argv", words[1:])
            tables.main()
            assert "not measured" not in Path(f"{words[3]}.md").read_text()
        return "".join(said)

    def shorten_tables():
        short = {}
        for name, table in tables.TABLES.items():
            phantoms = {**table.phantoms, "cases": 4, "size": (48, 48, 8)}
            preparation = {**table.preparation, "shares": (2, 1, 1)}
            staged = [row for row in table.rows if row.stage][:1]
            rows = tuple(replace(row, seeds=1) for row in [table.rows[0], *staged])
            short[name] = replace(
                table, phantoms=phantoms, preparation=preparation, rows=rows, minutes=0.02
            )
            Path(f"{name}.md").write_text("<!-- tables begin -->\n<!-- tables end -->\n")
        monkeypatch.setattr(tables, "TABLES", short)
        monkeypatch.setattr(tables, "RESULTS", tmp_path / "tables.jsonl")
        monkeypatch.setattr(tables, "PAGES", tmp_path)
        monkeypatch.setattr(tables, "cohort_digest", str)

    return one


def _less(words):
    """A command that does less: its own words, and those that make it small."""
    if words[0] == "train":
        given = pairs([word for before, word in pairwise(words) if before == "--set"])
        given |= _short(words[1], recipes.read(words[1], given))
        plain = [word for before, word in pairwise(["", *words]) if "--set" not in (word, before)]
        return [*plain, *(f"--set={key}={value}" for key, value in given.items())]
    words = [*words, *(word for key, less in LESS.items() if key in words for word in less)]
    if words[0] == "synth":
        like = words[words.index("--like") + 1] if "--like" in words else ""
        return [*words, *_few_steps(Path(words[1]), like)]
    return words


def _short(name, recipe):
    """The changes of a recipe that make a training of one step a stage, with narrow networks and small patches."""
    changes = {} if name.endswith("_small") else narrow(recipes.to_dict(recipe))
    for number, stage in enumerate(recipe.all_stages):
        place = "" if stage.name == "final" else f"stages.{stage.name}."
        length = "steps" if stage.train.epochs is None else "epochs"
        changes |= {f"{place}train.{length}": "1", f"{place}train.batch": "2"}
        changes[f"{place}train.validation_items"] = "1"
        if not place or recipe.stages[number].data is not None:
            patch = [min(size, most) for size, most in zip(stage.data.patch, MOST)]
            changes[f"{place}data.patch"] = str(patch)
    return changes


def _few_steps(run, like=""):
    """Sampling of two steps where the run samples."""
    folder = run if run.is_dir() else run.parent
    stage = "final" if run.is_dir() else run.name.split(".")[1]
    recipe = recipes.read(like or str(folder / "recipe.toml"))
    method = next(one.method for one in recipe.all_stages if one.name == stage)
    if not method.iterates:
        return []
    if recipe.synth.sampler == "rk45":
        return ["--set", "rtol=0.5", "--set", "atol=0.5"]
    if recipe.synth.traits.end == "one_step_early":  # with fewer steps they overshoot
        return ["--steps", 8, "--set", "end=0.125"]
    return ["--steps", 2]


def test_the_commands_of_a_page_take_a_small_row_the_whole_way(run, typed):
    said = "".join(run("make_a_volume", words) for words in on_phantoms("make_a_volume"))
    assert said.count("MAE") >= 2  # of the training and of the scores
    wide = "intensity.tof={kind='window',low=-1e5,high=1e5}"  # as in another unit
    line = f'train pix2pix_swi_mra_small --data HEADS_PREPARED --out WIDE --set "{wide}"'
    said = "expected the scans' bodies to fill the window -100000 to 100000"
    assert said in typed(line).refusal


def stated(command):
    """The words after each option of a command."""
    found, name = {}, ""
    for word in command:
        if word.startswith("--"):
            name = word.removeprefix("--")
        else:
            found.setdefault(name, []).append(word)
    return found


@every_row("page", PAPERS)
def test_the_documented_phantoms_are_those_of_the_table(page):
    phantom, prepare, *_ = map(stated, on_phantoms(page))
    table = tables.TABLES[page]
    for name, wanted in {**table.phantoms, "shares": table.preparation["shares"]}.items():
        words = wanted if isinstance(wanted, list) else [wanted]
        if wanted is not True:  # a flag
            assert {**phantom, **prepare}[name] == [str(word) for word in words], name


@slow
@pytest.mark.parametrize("page", PAPERS)
def test_every_command_of_a_papers_page_runs(page, run):
    for block in blocks(page):
        for words in block:
            run(page, words)
