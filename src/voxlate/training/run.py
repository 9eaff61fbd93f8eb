"""The folder of a training: its recipe, its log, and its weights as one file with a whole model."""

import hashlib
import json
import platform
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import tomli_w
import torch
from torch import Tensor, nn

import voxlate
from voxlate.batches.patches import teaching_cases
from voxlate.cases.intensity_checks import training_ranges
from voxlate.cases.prepared import Cohort
from voxlate.methods.method import Method
from voxlate.recipe import Recipe, from_dict, header, needed_code, to_dict
from voxlate.recipe.renamed import with_new_names
from voxlate.recipe.training import Training
from voxlate.scoring.provenance import read_run
from voxlate.scoring.verdict import Verdict, logged
from voxlate.system.errors import BadInput
from voxlate.system.files import LOCK, whole_file, write_json, write_text
from voxlate.system.records import Record, Tensors, checksum, write_tensors
from voxlate.training.headers import header_of
from voxlate.training.states import check_outline

DRAWS = 256  # of data.physics over all cases, from which the range of training intensities is taken
NOTICE = "Research software, not a medical device; not for diagnosis or treatment."
DIGITS = 16  # digits of a digest that identifies a scan
LONGEST_VALUE = 80  # characters of a list or text in a message


@dataclass(frozen=True)
class Run:
    """RUN/{recipe.toml, plan.json, provenance.json, log.jsonl, state.pt} and {weights, naive, anatomy}.safetensors."""

    folder: Path

    @property
    def recipe(self) -> Path:
        return self.folder / "recipe.toml"

    @property
    def pace(self) -> Path:
        return self.folder / "plan.json"

    @property
    def provenance(self) -> Path:
        return self.folder / "provenance.json"

    @property
    def log(self) -> Path:
        return self.folder / "log.jsonl"

    @property
    def state(self) -> Path:
        return self.folder / "state.pt"

    @property
    def naive(self) -> Path:
        return self.folder / "naive.safetensors"

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdicts on the validation items, compared with naive baselines; empty if unknown."""
        return logged(self.log).get("final", [])

    @property
    def anatomy(self) -> Path:
        return self.folder / "anatomy.safetensors"

    @property
    def has_begun(self) -> bool:
        """Whether a state or weights have been saved."""
        return self.state.exists() or any(self.folder.glob("weights*.safetensors"))

    def weights(self, stage: str = "final") -> Path:
        return self.folder / (
            "weights.safetensors" if stage == "final" else f"weights.{stage}.safetensors"
        )


def weights_of(path: Path) -> Path:
    """The weights file of a run folder; any other path is returned as it is."""
    return Run(path).weights() if path.is_dir() else path


def begin_run(
    folder: Path,
    recipe: Recipe,
    head: str,
    data: dict[str, Any],
    notes: Mapping[str, Any] | None = None,
) -> Run:
    """Create the folder of a run, or open an existing run of the same recipe on the same data.

    head: comment lines for recipe.toml; data: hash and splits of the cohort; notes: entries that may differ. A run
    without any training is replaced. Raises BadInput if the folder holds other files.
    """
    run = Run(folder)
    wanted = {"recipe": to_dict(recipe), "data": data}
    if run.provenance.exists():
        recorded = read_run(run.provenance)
        change = first_change({key: recorded.get(key) for key in wanted}, wanted)
        if not change:
            return run
        if run.has_begun:
            raise BadInput(
                f"{folder}: expected an empty folder or this very run, found another run ({change}). Choose another --out (with --init {folder} to begin from these weights), or give the same recipe and data to resume."
            )
        for file in (run.provenance, run.log, run.naive, run.anatomy):
            file.unlink(missing_ok=True)
    else:
        check_free(run)
    if needed := needed_code(wanted["recipe"]):
        head += f"# Needs code that is no part of voxlate: {', '.join(needed)}. Its models load with --allow-code.\n"
    write_text(run.recipe, head + tomli_w.dumps(wanted["recipe"]))
    write_json(run.provenance, {**made_by(), **wanted, **(notes or {})})
    return run


def check_free(run: Run) -> None:
    """Raise BadInput if a folder that is no run yet holds other files than those of a plan."""
    folder = run.folder
    if not folder.exists():
        return
    of_plan = {run.recipe, run.pace, folder / LOCK}
    if folder.is_dir() and set(folder.iterdir()) <= of_plan:
        return
    if run.has_begun or run.provenance.is_file():
        raise BadInput(
            f"{folder}: expected an empty folder or a plan, found a run. Choose another --out."
        )
    raise BadInput(
        f"{folder}: expected an empty folder or a run, found other files. Choose another --out."
    )


def begun_trainings(run: Run) -> dict[str, dict[str, Any]]:
    """The train table of each stage of a run that has begun; empty if there is no such run."""
    if not run.has_begun or not run.provenance.is_file():
        return {}
    recipe = read_run(run.provenance).get("recipe", {})
    tables = [*recipe.get("stages", ()), {**recipe, "name": "final"}]
    return {table.get("name"): table.get("train", {}) for table in tables}


def kept_steps(run: Run, recipe: Recipe) -> dict[str, int]:
    """The steps of stages in a run that has begun, if their numbers of epochs are those of the recipe.

    The definition of an epoch may have changed since then, and a run continues as it began.
    """
    begun = begun_trainings(run)
    asked = {
        stage.name: stage.train.epochs
        for stage in recipe.all_stages
        if stage.train.epochs is not None
    }
    return {
        name: begun[name]["steps"]
        for name, epochs in asked.items()
        if name in begun and begun[name].get("epochs") == epochs and begun[name].get("steps")
    }


def change_recipe(run: Run, recipe: Recipe, notes: Mapping[str, Any]) -> None:
    """Continue a run with another recipe, and add notes to its provenance, by which it resumes."""
    plain = to_dict(recipe)
    write_json(run.provenance, {**read_run(run.provenance), "recipe": plain, **notes})
    write_text(
        run.recipe,
        header(run.recipe.read_text(encoding="utf-8")) + tomli_w.dumps(plain),
    )


def reuse_weights(run: Run, others: Sequence[Run], recipe: Recipe, stage: str) -> list[str]:
    """Copy the weights of a stage from the first other run with the same recipe and data.

    recipe: that of the run up to this stage. Returns a sentence for each other run: that its weights are used, or the
    reason against it. Raises BadInput if one of them is no run.
    """
    sentences = []
    wanted = _trained_by(to_dict(recipe))
    data = read_run(run.provenance).get("data", {})
    for other in others:
        if not other.provenance.exists():
            raise BadInput(
                f"{other.folder}: expected a run to take stages from, found no provenance.json. Name a run."
            )
        theirs = other.weights(stage)
        their_data = read_run(other.provenance).get("data", {})
        if their_data.get("cohort") != data.get("cohort"):
            change = "it saw another cohort"
        elif their_data.get("splits") != data.get("splits"):
            change = "it trained on other cases (--fold)"
        elif not theirs.exists():
            change = f"it has no finished stage '{stage}'"
        else:
            change = first_change(_trained_by(read_header(theirs)["recipe"]), wanted)
        if not change:
            with whole_file(run.weights(stage)) as temporary:
                shutil.copyfile(theirs, temporary)
            return [f"stage '{stage}' is taken from {other.folder}."]
        sentences.append(f"stage '{stage}' is not taken from {other.folder}: {change}.")
    return sentences


def _trained_by(recipe: dict[str, Any]) -> dict[str, Any]:
    """The part of a recipe that determines the weights."""
    return {key: value for key, value in recipe.items() if key not in ("title", "synth")}


def made_by() -> dict[str, Any]:
    """The versions of the software that writes a file, and the notice that it is no medical device."""
    packages = {
        name: metadata.version(name) for name in ("torch", "numpy", "nibabel", "safetensors")
    }
    return {
        "voxlate": voxlate.__version__,
        "python": platform.python_version(),
        **packages,
        "notice": NOTICE,
    }


def weights_header(
    recipe: Recipe, method: nn.Module, cohort: Cohort, steps: int, seconds: float
) -> dict[str, Any]:
    """The header of a weights file: all data that synthesis needs in addition to the tensors."""
    cases = teaching_cases(cohort, recipe.data)  # other cases may have another scale
    maps = {name: recipe.intensity[name] for name in recipe.data.target}
    scales = {name: cohort.target_scale(intensity, name, cases) for name, intensity in maps.items()}
    plain = to_dict(recipe)
    sources = {name: recipe.intensity[name] for name in recipe.data.source}
    draws = max(1, DRAWS // len(cases))
    return {
        "recipe": plain,
        **({"imports": needed} if (needed := needed_code(plain)) else {}),
        "units": {name: cohort.units[name] for name in (*recipe.data.source, *recipe.data.target)},
        "target_scales": {name: [scale.low, scale.high] for name, scale in scales.items()},
        "target_widths": {
            name: cohort.target_widths(intensity, name, cases) for name, intensity in maps.items()
        },
        "preparation": asdict(cohort.preparation),
        "training_ranges": training_ranges(
            [header for case in cases for header in cohort.headers_of_draws(case, draws)], sources
        ),
        "training_spacing_mm": cohort.fingerprint["spacing_mm"]["median"],
        "parameters": sum(parameter.numel() for parameter in method.parameters()),
        "steps": steps,
        "seconds": seconds,
        "training_cases": len(cohort.splits["train"]),
        "training_ml": cohort.fingerprint["mask_ml"]["median"],
        "training_voxels": [
            cohort.header(case).voxels[name][:DIGITS]
            for case in cases
            for name in dict.fromkeys([*recipe.data.source, *recipe.data.target])
            if name in cohort.header(case).shown
        ],
        "training_signatures": [
            signature
            for case in cases
            for name, signature in cohort.header(case).signatures.items()
            if signature and name in recipe.data.source
        ],
        "made_by": made_by(),
    }


def file_hash(path: Path) -> str:
    """First 16 hexadecimal digits of SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def save_weights(path: Path, method: nn.Module, header: dict[str, Any]) -> None:
    """Write one safetensors file with recipe, intensity scales, units, provenance and a checksum in its header.

    Raises BadInput if a weight is not finite.
    """
    write_weights(path, dict(method.state_dict()), header)


def write_weights(path: Path, tensors: dict[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors as a weights file with this header, to which the checksum is added."""
    _check_finite(tensors, path)
    text = json.dumps({**header, "sha256": weights_checksum(header, tensors)})
    write_tensors(path, tensors, {"voxlate": text})


def weights_checksum(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """The checksum of a weights file: of its header without the entry of the checksum itself, and of its tensors."""
    plain = {key: value for key, value in header.items() if key != "sha256"}
    return checksum(json.dumps(plain, sort_keys=True), tensors)


def _check_finite(tensors: dict[str, Tensor], path: Path) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise BadInput(
                f"{path}: expected finite weights, found {int((~tensor.isfinite()).sum())} of {tensor.numel()} in '{name}' that are not: the training diverged. Train again with a lower train.optimiser.lr."
            )


def opened(path: Path, advice: str = "Copy or train it again.") -> AbstractContextManager[Tensors]:
    """An open weights file; raises BadInput if it is absent, or with the advice if it cannot be read."""
    return Record(path, "a trained model (voxlate train makes one)", advice).tensors("pt")


def read_header(path: Path) -> dict[str, Any]:
    """The header of a weights file; raises BadInput if voxlate did not write the file, or if it was changed."""
    with opened(path) as file:
        header = header_of(file)
    _check_whole(path, path.stat().st_mtime_ns)
    return {**header, "recipe": with_new_names(header["recipe"])}


@lru_cache(maxsize=64)
def _check_whole(path: Path, mtime_ns: int) -> None:
    """Compare a file with its checksum, once in each process."""
    read_weights(path)


def is_finished(path: Path, options: Training) -> bool:
    """Whether a weights file is of a stage's whole training; it is not while additional steps are missing."""
    return path.exists() and _more(read_header(path)["recipe"]) == list(options.more or ())


def _more(recipe: Any) -> list[int]:
    """`train.more` of a recipe in plain tables."""
    train = recipe.get("train") if isinstance(recipe, dict) else None
    return list(train.get("more") or ()) if isinstance(train, dict) else []


def _as_trained(stated: Any, trained: Any) -> Any:
    """A run's recipe without additional steps that its weights have not been trained for yet."""
    trained_more = _more(trained)
    asked = _more(stated)
    if trained_more == asked or trained_more != asked[: len(trained_more)]:
        return stated
    train = {key: value for key, value in stated["train"].items() if key != "more"}
    return {
        **stated,
        "train": {**train, **({"more": trained_more} if trained_more else {})},
    }


def load_weights(method: nn.Module, path: Path) -> None:
    """Load weights into a method; raises BadInput with the first tensor that is missing, unknown or of another shape."""
    tensors = read_weights(path)
    _check_finite(tensors, path)
    _check_shapes(method, tensors, path)
    method.load_state_dict(tensors)


def _check_shapes(method: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    wanted = method.state_dict()
    for name in sorted(wanted.keys() | tensors.keys()):
        here, there = (_shape(one.get(name)) for one in (wanted, tensors))
        if here != there:
            raise BadInput(
                f"{path}: expected weights of this recipe, found another's ('{name}': expected {here}, found {there}). Use the weights with the recipe they were trained by."
            )


def _built(recipe: Recipe, path: Path) -> Method:
    """The method of a recipe after a check that it fits the weights, because another may be too large to build."""
    header = read_header(path)
    tensors = read_weights(path)
    with (
        suppress(NotImplementedError, RuntimeError),
        torch.device("meta"),
    ):  # external code may compute while it builds
        method = recipe.build()
        _check_shapes(method, tensors, path)
        parameters = sum(parameter.numel() for parameter in method.parameters())
        if parameters != header["parameters"]:
            raise BadInput(
                f"{path}: expected weights of {header['parameters']} parameters, as their header states, found {parameters}. Get the file again."
            )
    return recipe.build()


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file; raises BadInput where they, or its header, are not as they were saved.

    Tensors that were packed in bfloat16 are returned in float32, which holds their values exactly.
    """
    with opened(path) as file:
        header = header_of(file)
        tensors = {name: file.file.get_tensor(name) for name in file.shapes}
    file.record.check_checksum(header["sha256"], weights_checksum(header, tensors))
    return {
        name: tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        for name, tensor in tensors.items()
    }


def _shape(tensor: Tensor | None) -> str:
    if tensor is None:
        return "nothing"
    shape = "×".join(map(str, tensor.shape)) or "a number"
    return (
        shape
        if tensor.dtype == torch.float32
        else f"{shape} of {tensor.dtype}".replace("torch.", "")
    )


def load_method(path: Path, allow_code: bool = False) -> tuple[Method, Recipe, dict[str, Any]]:
    """The finished method of a run folder or weights file, its recipe and its header.

    allow_code: import the code outside voxlate that the model names; without it such a model is refused. Raises
    BadInput also where the folder's recipe.toml is not the one that the weights were trained by.
    """
    weights = weights_of(path)
    if path.is_dir() and not weights.exists():
        unfinished = "a training that is not finished (run the same train command to resume)"
        state = unfinished if Run(path).state.exists() else "none"
        raise BadInput(f"{path}: expected a run with weights.safetensors, found {state}.")
    header = read_header(weights)
    recipe = from_dict(header["recipe"], f"{weights} (header)", allow_code)
    if path.is_dir() and Run(path).provenance.exists():
        if (stated := read_run(Run(path).provenance).get("recipe")) is None:
            raise BadInput(
                f"{Run(path).provenance}: expected the provenance of a training, with its recipe, found one without. Restore the file, or name weights.safetensors instead of the folder."
            )
        if change := first_change(_as_trained(stated, header["recipe"]), header["recipe"]):
            raise BadInput(
                f"{weights}: expected weights of this run's recipe, found those of another ({change}). Restore the run's own file."
            )
    method = _built(recipe, weights)
    load_weights(method, weights)
    return method.eval().requires_grad_(False), recipe, header


def save_state(path: Path, state: dict[str, Any]) -> None:
    with whole_file(path) as temporary:
        torch.save(state, temporary)


def load_state(path: Path) -> dict[str, Any]:
    """Read the state of a stopped training onto the CPU, wherever it was trained.

    Only tensors and plain values are accepted from the file.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            if packed.testzip() is not None:  # torch compares no checksums
                raise ValueError("a checksum differs")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader raises many types for a damaged or foreign file
        raise BadInput(
            f"{path}: expected a training state, found an unreadable file. Delete it to start again."
        ) from error
    check_outline(path, state)
    return state


def first_change(old: Any, new: Any, name: str = "") -> str:
    """The first differing key as a dotted path, with both values; "" if there is none."""
    if old == new:
        return ""
    first = _as_tables(old)
    second = _as_tables(new)
    if first is not None and second is not None:
        for place in sorted({*first, *second}):
            if change := first_change(
                first.get(place),
                second.get(place),
                f"{name}.{place}" if name else place,
            ):
                return change
    return f"{name} is {_in_words(old)} there and {_in_words(new)} here"


def _as_tables(value: Any) -> dict[str, Any] | None:
    """A table, or a list of tables such as stages by their names; None for anything else."""
    if isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
        return {str(entry.get("name", place)): entry for place, entry in enumerate(value)}
    return {str(key): entry for key, entry in value.items()} if isinstance(value, dict) else None


def _in_words(value: Any) -> str:
    if value is None or value == []:
        return "unset"
    if (table := _as_tables(value)) is not None:
        return (
            f"a table of {', '.join(table)}"
            if isinstance(value, dict)
            else f"a list of {', '.join(table)}"
        )
    text = repr(value)
    if len(text) <= LONGEST_VALUE:
        return text
    length = len(value) if isinstance(value, list | str) else len(text)
    return f"{length} long ({text[:LONGEST_VALUE]}…)"
