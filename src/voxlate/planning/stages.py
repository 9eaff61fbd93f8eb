"""The tables of a plan's stages: a regression, cycles or a completion, and samples of a regression's residual."""

from voxlate.planning import rules
from voxlate.planning.facts import Facts
from voxlate.planning.roles import Roles
from voxlate.planning.rules import Size, Tables, Why

PREDICTOR = "regression"
STARTED = ("start_from", "start_window")  # keys of the stage that begins from a starter


def first_stage(facts: Facts, roles: Roles, size: Size, steps: int) -> tuple[Tables, Why]:
    """The first stage of every plan, which is a whole recipe: a regression, or cycles if there are no pairs."""
    passes = steps * size.batch / max(facts.slices, 1)
    data, why = rules.data(facts, roles, size.stem, passes)
    names = dict.fromkeys([*roles.source, *roles.target])
    maps = {name: rules.intensity(facts.scans[name], name in roles.target) for name in names}
    if roles.pairing == "unpaired":
        learned, of_learned = _cycles(roles, size, steps)
    else:
        learned, of_learned = _regression(facts, roles, size, steps, data)
    task: Tables = {"kind": "translate"}
    if roles.pairing == "complete":
        task = {"kind": "complete"}
        if "allow_missing" in data:
            task["incomplete"] = True
    intensity: Tables = {name: table for name, (table, _) in maps.items()}
    peaks, of_peaks = rules.peaks(intensity, roles)
    synth = {"batch": rules.BATCH, **peaks}
    tables = {
        "task": task,
        **learned,
        "data": data,
        "intensity": intensity,
        "synth": synth,
    }
    why |= (
        {f"intensity.{name}": reason for name, (_, reason) in maps.items()} | of_learned | of_peaks
    )
    patch = data["patch"]
    slices = facts.shape
    if patch[1] < slices[1] or patch[2] < slices[2]:
        tables["synth"] |= {"slices": {"kind": "tiled"}, "overlap": 0.2}
        why["synth.slices"] = (
            "patches as in training, because whole slices contain more air, which changes the norms"
        )
    return tables, why


def _regression(
    facts: Facts, roles: Roles, size: Size, steps: int, data: Tables
) -> tuple[Tables, Why]:
    """Title, method, network and training of a regression of target images or of missing images."""
    net, of_net = rules.net(facts, size, data["patch"][1:])
    train, of_train = rules.training(steps, size.width, size.batch)
    method, of_method = rules.regression(facts)
    title = f"{_names(roles)}, planned: a regression"
    if roles.pairing == "complete":
        title = f"Any missing of {', '.join(roles.target)}, planned"
    why = {"net": of_net, **of_train, "method": of_method}
    return {"title": title, "method": method, "net": net, "train": train}, why


def _cycles(roles: Roles, size: Size, steps: int) -> tuple[Tables, Why]:
    """Title, method, network and training of a CycleGAN."""
    train, _ = rules.training(steps, size.width, size.batch)
    tables = {
        "title": f"{_names(roles)}, planned: CycleGAN, without pairs",
        "method": rules.CYCLE,
    }
    why = "no case has both sides: CycleGAN, which may invent structures where a regression predicts the mean"
    return {
        **tables,
        "net": rules.cycle_net(size),
        "train": {**train, **rules.CYCLE_TRAINING},
    }, {"method": why}


def _names(roles: Roles) -> str:
    return f"{' + '.join(roles.source)} to {' + '.join(roles.target)}"


def with_samples(tables: Tables, size: Size, steps: int) -> Tables:
    """A regression's recipe, extended by a diffusion of its residual with this number of steps."""
    stage = {
        "name": PREDICTOR,
        "method": tables["method"],
        "net": tables["net"],
        "train": tables["train"],
        **mirror(tables),
        **{key: tables[key] for key in STARTED if key in tables},
    }
    shared = {key: value for key, value in tables.items() if key not in STARTED}
    return {
        **shared,
        "title": f"{tables['title']}, and samples of its residual",
        "task": {"kind": "residual", "predictor": PREDICTOR, "scale": rules.RESIDUAL},
        "method": rules.OF_RESIDUAL,
        "net": {**tables["net"], "modulation": "scale_shift"},
        "synth": {**tables["synth"], **rules.FROM_REGRESSION},
        "train": rules.training(steps, size.width, rules.BATCH, draws=True)[0],
        "stages": [stage],
    }


def mirror(tables: Tables) -> Tables:
    """The key that averages a prediction with that of the flipped head: 1 % less error in twice the time."""
    return {"mirror": True} if "flip_lr" in tables["data"]["augment"] else {}
