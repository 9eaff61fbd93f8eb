"""Starters for a plan: which one fits a cohort, and the tables of a training that begins from it."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxlate.images.intensity import Window
from voxlate.images.units import unit_of
from voxlate.planning import law, rules
from voxlate.planning.facts import Facts, Scan
from voxlate.planning.pictures import Ends, shown_window
from voxlate.planning.roles import Roles
from voxlate.planning.rules import Tables, Why
from voxlate.recipe.training import BACKWARD
from voxlate.starters.card import Card, read_card
from voxlate.starters.names import PREFIX, starter_names
from voxlate.training.run import Run
from voxlate.training.starter import run_folder
from voxlate.training.weights import read_header

# Steps from random weights that a starter is worth: 250 steps from phantom weights reached what took 630 (one seed).
WORTH_STEPS = 380
# Training patients up to whom a starter is better than random weights, whatever the law predicts, which does not count
# patients: head-mr-to-ct, 3 minutes (docs/guides/starters.md has the table).
FEW_PATIENTS = 3
# Factor of the learning rate, so that the starter is not forgotten. With 0.25 one patient was learned by heart (MAE 0.105
# of a held-out head; 0.078 with 0.05 or less), and six as well with either (0.067 and 0.068, 0.066 and 0.069; two seeds).
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
    """A starter that fits a cohort: its name, its card, and its recipe with the cohort's names of modalities."""

    name: str
    card: Card
    tables: Tables

    @property
    def start_from(self) -> str:
        return f"{PREFIX}{self.name}"


def renamed(tables: Tables, names: Mapping[str, str]) -> Tables:
    """A recipe's tables with other names of its modalities; names: by the recipe's own."""
    changed = copy.deepcopy(tables)
    for table in (changed, *changed.get("stages", ())):
        for side in ("source", "target"):
            if side in table.get("data", {}):
                table["data"][side] = [names.get(name, name) for name in table["data"][side]]
        physics = table.get("data", {}).get("physics")
        if physics:
            physics["contrasts"] = _by_new_name(physics["contrasts"], names)
    changed["intensity"] = _by_new_name(changed["intensity"], names)
    if "peak_shares" in changed.get("synth", {}):
        changed["synth"]["peak_shares"] = _by_new_name(changed["synth"]["peak_shares"], names)
    return changed


def _by_new_name(table: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in table.items()}


def matched(card: Card, source: Sequence[str], target: Sequence[str]) -> dict[str, str] | None:
    """The cohort's name of each modality of a starter, in the order of its channels; None if they do not match."""
    names = dict[str, str]()
    for own, theirs in ((card.source, source), (card.target, target)):
        if len(own) != len(theirs):
            return None
        left = list(theirs)
        for name in own:
            fitting = [other for other in left if other in {name, *card.accepts.get(name, ())}]
            if not fitting:
                return None
            names[name] = name if name in fitting else fitting[0]
            left.remove(names[name])
    return names


def fitting_starter(facts: Facts, roles: Roles, regression: bool) -> tuple[Starter | None, str]:
    """The starter that fits a cohort and its roles, and the reason for it or against all; "" if none is installed.

    regression: whether the plan's first stage is one; a diffusion has other inputs than a starter.
    """
    against = []
    for name in starter_names():
        folder = run_folder(f"{PREFIX}{name}")
        header = read_header(Run(folder).weights())
        card = read_card(folder)
        reason = _against(card, header["recipe"], facts, roles)
        if not reason and not regression:
            reason = "it is a regression, which --mode mean plans"
        if reason:
            against.append(f"{PREFIX}{name} does not fit ({reason})")
            continue
        names = matched(card, roles.source, roles.target)
        assert names is not None
        body = "stripped brains" if card.stripped else "heads with their skull"
        why = f"{PREFIX}{name}, because it makes {' and '.join(roles.target)} of {' and '.join(roles.source)} of {body} with pixels of {facts.pixel_mm:.2g} mm; it was trained on {card.trained_on} (--from-scratch for random weights)"
        return Starter(name, card, renamed(header["recipe"], names)), why
    return None, f"random weights: {'; '.join(against)}" if against else ""


def _against(card: Card, recipe: Tables, facts: Facts, roles: Roles) -> str:
    """The reason why a starter does not fit a cohort; "" if it fits."""
    completes = recipe.get("task", {}).get("kind") == "complete"
    makes = f"{' and '.join(card.target)} of {' and '.join(card.source)}"
    if roles.pairing != ("complete" if completes else "pairs"):
        return f"it {'completes' if completes else 'translates pairs'}, and the plan is for other pairs"
    if matched(card, roles.source, roles.target) is None:
        return f"it makes {makes}"
    if other := _other_scans(card, facts):
        return other
    if recipe["net"].get("kind") != "unet":
        return "its network is of another kind than those of plans"
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


def without_training(facts: Facts, roles: Roles) -> str:
    """The command by which a starter synthesises the targets at once; "" if none takes these scans."""
    for name in starter_names():
        card = read_card(run_folder(f"{PREFIX}{name}"))
        known = {other for own in card.source for other in (own, *card.accepts.get(own, ()))}
        completes = card.source == card.target and known >= {*roles.source, *roles.target}
        fits = completes or matched(card, roles.source, roles.target) is not None
        if fits and not _other_scans(card, facts):
            wanted = "".join(f" --missing {target}" for target in roles.target if completes)
            return f"voxlate synth {PREFIX}{name} COHORT{wanted} --out OUT"
    return ""


def reason_against(card: Card, facts: Facts) -> str:
    """The reason why a starter does not take the scans of a cohort; "" if it takes them."""
    missing = [
        name
        for name in dict.fromkeys((*card.source, *card.target))
        if not facts.scans.keys() & {name, *card.accepts.get(name, ())}
    ]
    completes = card.source == card.target
    if len(missing) > (len(card.source) - 2 if completes else 0):
        return f"needs {'two of ' if completes else ''}{', '.join(card.source if completes else missing)}, which the cohort lacks"
    return _other_scans(card, facts)


def few_teach(patients: int) -> str:
    """A sentence where so few patients teach that a starter is better, whatever the law predicts; else ''."""
    if patients > FEW_PATIENTS:
        return ""
    taught = "one patient teaches" if patients == 1 else f"{patients} patients teach"
    return f"{taught}, and a starter was measured to be better than random weights for up to {FEW_PATIENTS}"


def starter_error(starter: Starter, facts: Facts, batch: int, steps: int) -> float:
    """The predicted relative error of a training from a starter."""
    net = starter.tables["net"]
    pixel_mm = net.get("patch", 1) * facts.pixel_mm
    return law.relative_error(net["width"], pixel_mm, batch, steps + WORTH_STEPS)


def windows_of(starter: Starter, tables: Tables, facts: Facts) -> dict[str, Ends]:
    """The window in HU that pictures of a planned target show; empty if the target is in Hounsfield units itself."""
    names = dict(zip(starter.card.source, tables["data"]["source"]))
    names |= dict(zip(starter.card.target, tables["data"]["target"]))
    shown = {}
    for name in tables["data"]["target"]:
        if facts.scans[name].pictures and unit_of(name) == "HU":
            grey = Window(**tables["intensity"][name])
            shown[name] = shown_window(
                starter.start_from, names, facts.cohort, tables["data"], grey
            )
    return shown


def begun_from(
    starter: Starter, tables: Tables, facts: Facts, steps: int, windows: Mapping[str, Ends]
) -> tuple[Tables, Why]:
    """Planned tables of a first stage with the starter's network and intensities, a lower rate, and an early stop.

    windows: those of `windows_of`.
    """
    own = starter.tables
    data = {**tables["data"]}
    data.pop("stack", None)
    if own["data"].get("stack"):
        data["stack"] = own["data"]["stack"]
    data["augment"] = _stronger(data.get("augment", {}), own["data"].get("augment", {}))
    maps = {
        name: own["intensity"][name] if _same_unit(facts.scans[name]) else spec
        for name, spec in tables["intensity"].items()
    }
    validated = bool(facts.cohort.splits["val"])
    train = gentle(tables["train"], steps, validated, RATE_OF_PLAN, patience=0)
    averaged, of_average = _averaged(train["ema"], steps, facts.patients)
    train |= averaged
    net, of_net = _padded(own["net"], tables["data"]["patch"], facts)
    why = {
        "net": f"that of {starter.start_from}",
        "train.ema": of_average,
        "train.optimiser.lr": f"{train['optimiser']['lr']:g}, {RATE_OF_PLAN:g} of the rate from random weights, so that the starter is not forgotten",
    }
    if "best" in train:
        why["train.best"] = (
            "the weights of the least validation error are kept, because few patients are soon learned by heart"
        )
    if data["augment"] != tables["data"].get("augment", {}):
        why["data.augment"] = (
            f"changes of shape as strong as those of {starter.start_from}, because its network learns few patients by heart"
        )
    shown, of_windows = _in_windows(own, tables, windows)
    changed = {
        **tables,
        **shown,
        "data": data,
        "intensity": maps,
        "net": net,
        "train": train,
        "start_from": starter.start_from,
    }
    return changed, why | of_net | of_windows


def _averaged(ema: float, steps: int, patients: int) -> tuple[Tables, str]:
    """The keys of the running average: of few patients over all steps, with about a third of the starter's weights.

    Weights between a starter's and their fine-tuning err less on other scans than either: Wortsman et al. 2022,
    arXiv:2109.01903. Held-out MAE of 1, 2, 3 patients, mean of two seeds: 0.083, 0.076, 0.070; 0.090, 0.080, 0.072 by
    the last steps alone.
    """
    if not few_teach(patients):
        return {}, f"an average over the last {1 / (1 - ema):.0f} of {steps:,} steps"
    why = f"an average over all {steps:,} steps and the starter's weights, because few patients are soon learned by heart"
    return {"ema": round(1 - 1 / steps, 5), "keep_start": True}, why


def _padded(net: Tables, patch: Sequence[int], facts: Facts) -> tuple[Tables, Why]:
    """A starter's network, whose borders are padded in synthesis as in training where patches are whole slices."""
    _, height, width = facts.shape
    if list(patch[1:]) != [height, width]:
        return net, {}
    why = "zeros also in synthesis, because patches are whole slices, and a starter keeps its response to another border"
    return {**net, "border": "zeros"}, {"net.border": why}


def _in_windows(own: Tables, tables: Tables, windows: Mapping[str, Ends]) -> tuple[Tables, Why]:
    """The keys by which a starter's output is rescaled to windows of its range; own: the starter's tables."""
    if not windows:
        return {}, {}
    ((name, (low, high)),) = windows.items()
    (whole,) = (own["intensity"][target] for target in own["data"]["target"])
    # What the starter puts beyond the window is right: it is hardly pulled back.
    leak = round(LEAK * (high - low) / (whole["high"] - whole["low"]), 5)
    why = f"the grey levels are most like those of the starter's CT from {low:g} to {high:g} HU, to which its output is rescaled"
    changed = {
        "method": {**tables["method"], "leak": leak},
        "start_window": {name: [low, high]},
    }
    return changed, {f"start_window.{name}": why}


def _stronger(planned: Tables, own: Tables) -> Tables:
    """Planned augmentation with changes of shape that are as large as a starter's own."""
    shapes = {name: max(planned.get(name, 0), own[name]) for name in SHAPES if own.get(name)}
    return {**planned, **shapes}


def gentle(
    train: Tables,
    steps: int,
    validated: bool,
    rate: float,
    patience: int = PATIENCE,
) -> Tables:
    """The table `train` of a training from other weights: a lower rate, and the best validation's weights are kept.

    validated: whether there are cases to validate; rate: factor of the learning rate.
    """
    unfit = ("epochs", "more", "stop", "best", "replay")
    kept = {key: value for key, value in train.items() if key not in unfit}
    optimiser = train["optimiser"]
    warm_up = min(optimiser.get("warm_up", 0), max(steps // 10, 0))
    table: Tables = {
        **kept,
        "steps": steps,
        "ema": rules.training(steps, rules.BATCH, rules.BATCH)[0]["ema"],
        "optimiser": {**optimiser, "lr": rate * optimiser["lr"], "warm_up": warm_up},
    }
    if validated:
        every = max(steps // VALIDATIONS, 1)
        table |= {
            "validate_every": every,
            "save_every": every,
            "validation_items": _validation_items(train.get("batch", rules.BATCH), every),
            "best": {"patience": patience},
        }
    return table


def _validation_items(batch: int, every: int) -> int:
    """The items of a validation, each of which costs a loss and an image."""
    affordable = VALIDATION_COST * BACKWARD * batch * every / 2
    return min(max(int(affordable), FEWEST_ITEMS), MOST_ITEMS)


def _same_unit(scan: Scan) -> bool:
    """Whether a modality's values are in the unit that its name suggests, as those of a starter's training were.

    Grey levels of an MR are as arbitrary as its own unit.
    """
    wanted = unit_of(scan.name)
    if wanted == "a.u.":
        return scan.unit in (wanted, "grey")
    return scan.unit == wanted and not scan.pictures
