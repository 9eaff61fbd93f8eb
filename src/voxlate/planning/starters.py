"""Starters for a plan: which one fits a cohort, and the tables of a training that begins from it."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxlate.images.units import unit_of
from voxlate.planning import law, rules
from voxlate.planning.facts import Facts, Scan
from voxlate.planning.pictures import Ends, find_windows
from voxlate.planning.roles import Roles
from voxlate.planning.rules import Draft, Size, Tables, first_stage
from voxlate.planning.search import Candidate, Search
from voxlate.planning.zero_shot import measure_start
from voxlate.recipe.training import BACKWARD
from voxlate.scoring.verdict import Verdict
from voxlate.starters.card import Card, read_card
from voxlate.starters.names import PREFIX, starter_names
from voxlate.training.run import Run
from voxlate.training.starter import run_folder
from voxlate.training.weights import read_header

# Steps from random weights that a starter is worth: 250 steps from phantom weights reached what took 630 (one seed).
WORTH_STEPS = 380
# Training patients up to whom a starter is no worse than random weights, whatever the law predicts, which does not count
# patients: 3 minutes (docs/guides/starters.md has the tables).
FEW_PATIENTS = 3
# Factor of the learning rate, so that the starter is not forgotten. With 0.25 one patient was learned by heart (MAE 0.105
# of a held-out head; 0.078 with 0.05 or less), and six as well with either (0.067 and 0.068, 0.066 and 0.069; two seeds).
# T1 to T2 of three brains, one seed: with 0.25 the validation error fell by 8.1 % in 225 steps and rose again, with 0.05 and
# train.keep_start it fell by 9.6 % in 511 and was still falling (docs/guides/starters.md has the table).
RATE_OF_PLAN = 0.05
LEAK = 0.1  # slope beyond the range, in the unit of a starter
VALIDATIONS = 8  # of a training that keeps its best weights
PATIENCE = 3  # validations without a lower error after which an adaptation ends
# Changes of shape, of which a training from a starter has the larger of its own and the starter's: a starter learns few
# patients by heart within 200 steps (MAE 0.068 of held-out heads without the starter's, 0.065 with them; one seed).
SHAPES = (
    "rotate_degrees",
    "tilt_degrees",
    "scale",
    "stretch",
    "shear",
    "translate",
    "elastic_mm",
    "elastic_points",
)
# Items of each validation: as many as cost this share of the training's network evaluations, within bounds.
VALIDATION_COST = 0.15
FEWEST_ITEMS, MOST_ITEMS = 4, 32
# Bodies below this width are brains without a skull: brains are 125 to 145 mm wide, heads with skin 150 mm or more.
WIDEST_BRAIN_MM = 148
MOST_SPACING_RATIO = 1.5  # beyond the pixels of a starter's training


@dataclass(frozen=True)
class Starter:
    """A starter that fits a cohort: starter:NAME, its card, and its recipe with the cohort's names of modalities."""

    start_from: str
    card: Card
    tables: Tables


def rename(tables: Tables, names: Mapping[str, str]) -> Tables:
    """A recipe's tables with other names of its modalities; names: by the recipe's own."""

    def by_new_name(table: Mapping[str, Any]) -> dict[str, Any]:
        """A table by the new names."""
        return {names.get(name, name): value for name, value in table.items()}

    changed = copy.deepcopy(tables)
    for stage in (changed, *changed.get("stages", ())):
        data = stage.get("data", {})
        for side in data.keys() & {"source", "target"}:
            data[side] = [names.get(name, name) for name in data[side]]
        if data.get("physics"):
            data["physics"]["contrasts"] = by_new_name(data["physics"]["contrasts"])
    changed["intensity"] = by_new_name(changed["intensity"])
    if "peak_shares" in changed.get("synth", {}):
        changed["synth"]["peak_shares"] = by_new_name(changed["synth"]["peak_shares"])
    return changed


def find_starter(facts: Facts, roles: Roles, mode: str) -> tuple[Starter | None, str]:
    """The starter that fits a cohort and its roles, and the reason for it or against all; "" if none is installed.

    mode: of the plan, whose first stage is a regression, as starters are, unless it draws missing images.
    """
    against = []
    for name in map(f"{PREFIX}{{}}".format, starter_names()):
        folder = run_folder(name)
        recipe = read_header(Run(folder).weights())["recipe"]
        card = read_card(folder)
        reason = reason_against_training(card, facts, roles, mode)
        if not reason and recipe["net"].get("kind") != "unet":
            reason = "its network is of another kind than those of plans"
        if reason:
            against.append(f"{name} does not fit ({reason})")
            continue
        body = "stripped brains" if card.stripped else "heads with their skull"
        why = f"{name}, because it makes {' and '.join(roles.target)} of {' and '.join(roles.source)} of {body} with pixels of {facts.pixel_mm:.2g} mm; it was trained on {card.trained_on} (--from-scratch for random weights)"
        names = card.match(roles.source, roles.target)
        return Starter(name, card, rename(recipe, names or {})), why
    return None, f"random weights: {'; '.join(against)}" if against else ""


def reason_against_training(card: Card, facts: Facts, roles: Roles, mode: str) -> str:
    """The reason why a plan cannot start from a starter; "" if it can. mode: see find_starter."""
    if roles.pairing == "unpaired":
        return "the plan is for scans without pairs"
    if roles.pairing == "complete" and not card.completes:
        return "it translates pairs, and the plan is for any missing contrast"
    if roles.pairing == "complete" and facts.gaps:
        return "it knows no cases that lack contrasts"
    if card.match(roles.source, roles.target) is None:
        return f"it makes {' and '.join(card.target)} of {' and '.join(card.source)}"
    if reason := _other_scans(card, facts):
        return reason
    if roles.pairing == "complete" and mode != "mean":
        return "it is a regression, which --mode mean plans"
    return ""


def _other_scans(card: Card, facts: Facts) -> str:
    """The reason why a cohort's bodies or pixels are not those of a starter; "" if they are."""
    stripped = facts.brain or facts.wide_mm < WIDEST_BRAIN_MM
    if stripped != card.stripped:
        trained = "brains without a skull" if card.stripped else "heads with their skull"
        return f"it knows {trained}, and bodies here are {facts.wide_mm:.0f} mm wide{', in brain masks' if facts.brain else ''}"
    finest, coarsest = card.spacing_mm
    if not finest / MOST_SPACING_RATIO <= facts.pixel_mm <= coarsest * MOST_SPACING_RATIO:
        return f"its pixels are {finest:.2g} to {coarsest:.2g} mm, and pixels here are {facts.pixel_mm:.2g} mm"
    return ""


def without_training(facts: Facts, roles: Roles, scans: str) -> str:
    """The command by which a starter synthesises the targets at once; "" if none takes these scans.

    scans: their folder in the command.
    """
    for name in starter_names():
        card = read_card(run_folder(f"{PREFIX}{name}"))
        fits = card.match(roles.source, roles.target) is not None
        if fits and not _other_scans(card, facts):
            wanted = "".join(f" --missing {target}" for target in roles.target if card.completes)
            return f"voxlate synth {PREFIX}{name} {scans}{wanted} --out OUT"
    return ""


def reason_against(card: Card, facts: Facts) -> str:
    """The reason why a starter does not take the scans of a cohort; "" if it takes them."""
    names = dict.fromkeys((*card.source, *card.target))
    missing = [name for name in names if not facts.scans.keys() & {*card.names_of(name)}]
    if card.completes and len(missing) > len(card.source) - 2:
        return f"needs two of {', '.join(card.source)}, which the cohort lacks"
    if missing and not card.completes:
        return f"needs {', '.join(missing)}, which the cohort lacks"
    return _other_scans(card, facts)


def few_teach(patients: int) -> str:
    """A sentence where so few patients teach that a starter is better, whatever the law predicts; else ''."""
    if patients > FEW_PATIENTS:
        return ""
    taught = "one patient teaches" if patients == 1 else f"{patients} patients teach"
    return f"{taught}, and a starter was measured to be no worse than random weights for up to {FEW_PATIENTS}"


def relative_error(net: Tables, facts: Facts, batch: int, steps: int) -> float:
    """The predicted relative error of a training with a starter's network; steps: with those that it is worth."""
    pixel_mm = net.get("patch", 1) * facts.pixel_mm
    return law.relative_error(net["width"], pixel_mm, batch, steps)


def worth_steps(verdicts: Sequence[Verdict]) -> int:
    """The steps from random weights that a starter is worth: none where its error is measured and no baseline's is larger."""
    own = sum(verdict.synthesis or 0.0 for verdict in verdicts)
    naive = sum(verdict.naive or 0.0 for verdict in verdicts)
    return WORTH_STEPS if not verdicts or own < naive else 0


def describe_start(start_from: str, verdicts: Sequence[Verdict]) -> str:
    """A sentence on the measured errors of a starter without training and of the best naive baselines."""
    errors = [
        f"{verdict.modality} {verdict.synthesis:.3g} (best naive baseline, {verdict.baseline}: {verdict.naive:.3g})"
        for verdict in verdicts
        if verdict.synthesis is not None
    ]
    worth = worth_steps(verdicts)
    judged = (
        f"lower, so it is worth {worth} steps" if worth else "not lower, so it is worth no steps"
    )
    return f"{start_from} without training has a mean absolute error on validation cases, in network units, of {', '.join(errors)}: {judged}"


def plan_from_starter(
    starter: Starter, search: Search, best: Candidate, share: float
) -> tuple[Candidate, Draft] | str:
    """The first stage from a starter's weights if patients are few or its predicted error is not larger than the best's.

    Otherwise the reason for random weights. best: the best network from these; share: of the time.
    """
    facts, roles = search.facts, search.roles
    net = starter.tables["net"]
    size = Size(net["width"], net.get("patch", 1), best.size.batch)
    trial = first_stage(facts, roles, best.size, best.steps)
    windows = find_windows(starter.start_from, starter.card, trial)
    begin_from(starter, trial, windows)
    verdicts = measure_start(trial.tables, search.probe.cohort, search.probe.device_name)
    measured = search.probe.measure(trial.tables, 0)
    if measured is None:
        return "random weights, because the network of the starter needs too much memory"
    seconds = search.seconds(share) * (1 - VALIDATION_COST)
    fitting = max(int(seconds / measured.seconds), 1)
    steps = min(fitting, rules.most_items(facts) // size.batch)
    error = relative_error(net, facts, size.batch, steps + worth_steps(verdicts))
    why = few_teach(facts.patients)
    tested = describe_start(starter.start_from, verdicts) if verdicts else ""
    if error > best.error and not why:
        reason = f"random weights, because {best.size} has a predicted error {1 - best.error / error:.1%} below that of the starter's network after {steps:,} steps"
        return f"{reason}; {tested}" if tested else reason
    draft = first_stage(facts, roles, size, steps)
    begin_from(starter, draft, windows)
    if tested:
        draft.why["starter"] = tested
    draft.why["net.width"] = (
        f"{size} of the starter gets {steps:,} steps of {measured.seconds:.3f} s: {why or compare_with_random(error, best)}"
    )
    return Candidate(size, measured.seconds, steps, error), draft


def compare_with_random(error: float, best: Candidate) -> str:
    """The predicted error of a starter relative to the best network from random weights, where both are predicted."""
    if not (math.isfinite(error) and math.isfinite(best.error)):
        return f"its error is not predicted, so it is not compared with {best.size} from random weights"
    return f"a predicted error {1 - error / best.error:.1%} below {best.size} from random weights"


def begin_from(starter: Starter, draft: Draft, windows: Mapping[str, Ends]) -> None:
    """Give the draft of a first stage the starter's network and intensities, a lower rate, and an early stop.

    windows: those of `find_windows`.
    """
    own, tables, facts, why = starter.tables, draft.tables, draft.facts, draft.why
    data = draft.data
    data.pop("stack", None)
    why.pop("data.stack", None)
    data |= {key: own["data"][key] for key in ("stack", "lift") if own["data"].get(key)}
    for name in tables["intensity"]:
        if _is_in_usual_unit(facts.scans[name]):
            tables["intensity"][name] = own["intensity"][name]
    tables["net"] = own["net"]
    why["net"] = f"that of {starter.start_from}"
    validation = 0 if facts.cohort.splits["val"] else None
    train = lower_rate(tables["train"], draft.steps, RATE_OF_PLAN, validation)
    if few_teach(facts.patients):
        train |= {"ema": round(1 - 1 / draft.steps, 5), "keep_start": True}
        why["train.ema"] = (
            f"an average over all {draft.steps:,} steps and the starter's weights, because few patients are soon learned by heart"
        )
    tables["train"] = train
    why["train.optimiser.lr"] = (
        f"{train['optimiser']['lr']:g}, {RATE_OF_PLAN:g} of the rate from random weights, so that the starter is not forgotten"
    )
    if "best" in train:
        why["train.best"] = (
            "the weights of the least validation error are kept, those of the starter among them"
        )
    augment, shapes = data["augment"], own["data"].get("augment", {})
    data["augment"] = augment | {
        name: max(augment.get(name, 0), shapes[name]) for name in SHAPES if shapes.get(name)
    }
    if data["augment"] != augment:
        why["data.augment"] = (
            f"changes of shape as strong as those of {starter.start_from}, because its network learns few patients by heart"
        )
    if tuple(data["patch"][1:]) == tuple(facts.shape[1:]):
        tables["net"] = {**own["net"], "border": "zeros"}
        why["net.border"] = (
            "zeros also in synthesis, because patches are whole slices, and a starter keeps its response to another border"
        )
    for name, ends in windows.items():
        _rescale(draft, own, name, ends)
    tables["start_from"] = starter.start_from


def _rescale(draft: Draft, own: Tables, name: str, ends: Ends) -> None:
    """Rescale a starter's output to a window of its range; own: the starter's tables; name: the target."""
    low, high = ends
    (whole,) = (own["intensity"][target] for target in own["data"]["target"])
    # What the starter puts beyond the window is right: it is hardly pulled back.
    draft.tables["method"]["leak"] = round(LEAK * (high - low) / (whole["high"] - whole["low"]), 5)
    draft.tables["start_window"] = {name: [low, high]}
    draft.why[f"start_window.{name}"] = (
        f"the grey levels are most like those of the starter's CT from {low:g} to {high:g} HU, to which its output is rescaled"
    )


def lower_rate(train: Tables, steps: int, rate: float, patience: int | None = PATIENCE) -> Tables:
    """The table `train` of a training from other weights: a lower rate, and the best validation's weights are kept.

    rate: factor of the learning rate; patience: validations without a lower error after which the training ends, None
    where no case validates.
    """
    unfit = ("epochs", "more", "stop", "best", "replay")
    kept = {key: value for key, value in train.items() if key not in unfit}
    optimiser = train["optimiser"]
    warm_up = min(optimiser.get("warm_up", 0), max(steps // 10, 0))
    table: Tables = {
        **kept,
        "steps": steps,
        "ema": rules.average_decay(steps),
        "optimiser": {**optimiser, "lr": rate * optimiser["lr"], "warm_up": warm_up},
    }
    if patience is not None:
        every = max(steps // VALIDATIONS, 1)
        # Each item of a validation costs a loss and an image.
        affordable = VALIDATION_COST * BACKWARD * train.get("batch", rules.BATCH) * every / 2
        table |= {
            "validate_every": every,
            "save_every": every,
            "validation_items": min(max(int(affordable), FEWEST_ITEMS), MOST_ITEMS),
            "best": {"patience": patience},
        }
    return table


def _is_in_usual_unit(scan: Scan) -> bool:
    """Whether a modality's values are in the unit that its name suggests, as those of a starter's training were.

    Grey levels of an MR are as arbitrary as its own unit.
    """
    wanted = unit_of(scan.name)
    if wanted == "a.u.":
        return scan.unit in (wanted, "grey")
    return scan.unit == wanted and not scan.pictures
