"""The settings of a recipe: everything that a result depends on, in addition to the data."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Annotated

from pydantic import Field

from voxlate.base.config import Importable, setting, settings
from voxlate.base.errors import BadInput
from voxlate.base.streams import Independent, SliceNoise
from voxlate.scans.cases.prepared import Cohort
from voxlate.scans.images.intensity import Intensity
from voxlate.scans.images.tiling import AnySlices, Whole
from voxlate.science.diffusion.sample import SamplerSettings
from voxlate.science.methods.method import Method, MethodSettings, TaskSettings
from voxlate.science.methods.opponent import OpponentSettings
from voxlate.science.methods.tasks import Translate
from voxlate.science.nets.interface import NetSettings
from voxlate.science.nets.unet import UNet
from voxlate.training.batches.data_settings import DataSettings
from voxlate.training.recipe.training_settings import (
    BACKWARD,
    VALIDATION_SHARE,
    VALIDATION_STEPS,
    Precision,
    Training,
)

MOST_SAMPLES = 10_000  # a standard deviation is then known to 1 %; more is a slip of the keyboard

SCIENCE = "voxlate.science."
METHODS = {
    "diffusion": "methods.diffusion:DiffusionSettings",
    "flow": "methods.diffusion:FlowSettings",
    "regression": "methods.regression:RegressionSettings",
    "cycle": "methods.cycle:CycleSettings",
    "autoencoding": "methods.autoencoding:AutoencodingSettings",
}
NETS = {
    "unet": "nets.unet:UNet",
    "bran": "nets.bran:Bran",
    "resnet": "nets.resnet:ResNet",
    "kl_autoencoder": "nets.autoencoder:KLAutoencoder",
    "xmodality_unet": "nets.xmodality_unets:PlainUNet",
    "adm": "nets.xmodality_unets:ADM",
    "uvit": "nets.xmodality_unets:UViT",
    "dit": "nets.dit:DiT",
    "hi_net": "nets.completion:HiNet",
    "mm_gan": "nets.completion:MMGAN",
    "mm_syn": "nets.shared_space:MMSYN",
    "coca_gan": "nets.shared_space:CocaGAN",
    "ucd_gan": "nets.shared_space:UcDGAN",
}
TASKS = {
    "translate": "methods.tasks:Translate",
    "complete": "methods.tasks:Complete",
    "residual": "methods.stage_tasks:Residual",
    "latent": "methods.stage_tasks:Latent",
}


def _kinds(homes: Mapping[str, str], settings_of: str = "") -> Importable:
    """The kinds of settings in the wing science."""
    return Importable({name: SCIENCE + home for name, home in homes.items()}, settings_of)


AnyMethod = Annotated[MethodSettings, _kinds(METHODS)]
AnyNet = Annotated[NetSettings, _kinds(NETS, f"{SCIENCE}nets.interface:settings_of_module")]
AnyTask = Annotated[TaskSettings, _kinds(TASKS)]
AnyIntensity = Annotated[Intensity, Importable()]
StageTask = Annotated[AnyTask, setting("Task: how a batch becomes a problem for the network.")]
StageMethod = Annotated[AnyMethod, setting("Method: the model that is trained, and its loss.")]
Critic = Annotated[
    OpponentSettings | None, setting("Critic of the images, for an adversarial loss; unset: none.")
]
StageNet = Annotated[AnyNet, setting("Network of the method.")]
StageTraining = Annotated[Training, setting("Training: steps, batches and the optimiser.")]
StartFrom = Annotated[
    str | None,
    setting(
        "Earlier stage, or starter:NAME, whose weights initialise this one; weights that it lacks are initialised at random."
    ),
]

StartWindow = Annotated[
    dict[str, tuple[float, float]],
    setting(
        "By target that pictures show, their window: the values, in the unit of the starter's own range, that are black and white. The starter's output is rescaled to it before the first step."
    ),
]


@settings
class Synthesis(SamplerSettings):
    """How images are sampled from the trained model."""

    samples: Annotated[
        int,
        setting(
            "Number of images sampled for each case; more than 1 give a mean and a standard deviation.",
            ge=1,
            le=MOST_SAMPLES,
        ),
    ] = 1
    sharpness: Annotated[
        float,
        setting(
            "Place on the line from the mean prediction (0) to the sample (1), of a model that has both (Freirich et al. 2021).",
            ge=0,
            le=1,
        ),
    ] = 1.0
    gradient_ratio: Annotated[
        float | None,
        setting(
            "Gradient ratio of validation images to the truth at which the end of the training sets `sharpness`; unset: `sharpness` stays as stated.",
        ),
    ] = None
    batch: Annotated[
        int,
        setting(
            "Number of slices or patches computed at a time; it changes memory, and rounding unless `exact` is set.",
            ge=1,
        ),
    ] = 4
    exact: Annotated[
        bool,
        setting(
            "Whether synthesis is bit-identical for every batch: float32, and one slice or patch at a time, which is slower."
        ),
    ] = False
    overlap: Annotated[
        float,
        setting("Share by which neighbouring patches or tiles overlap.", ge=0, lt=1),
    ] = 0.5
    slices: Annotated[
        AnySlices, setting("Input of a model of slices: whole slices, or parts of them.")
    ] = Whole()
    noise: Annotated[SliceNoise, setting("Correlation between the noise of a volume's slices.")] = (
        Independent()
    )
    precision: Annotated[
        Precision,
        setting(
            "Precision of convolutions and products in synthesis; auto: bfloat16 where the training used it and this machine multiplies it, else float32."
        ),
    ] = "auto"
    mirror: Annotated[
        bool,
        setting(
            "Whether images are averaged with those of the left-right mirrored input, which doubles the time."
        ),
    ] = False
    peaks: Annotated[
        bool,
        setting(
            "Whether values above the median are stretched until the upper percentile of the intensity map is almost where it is in training scans."
        ),
    ] = False
    peak_shares: Annotated[
        dict[str, Annotated[float, Field(gt=0, le=3)]],
        setting(
            "By target, the share of the training scans' range to which `peaks` moves the upper percentile; 0.95 where none is given."
        ),
    ] = field(default_factory=dict)


@settings
class Stage:
    """One training; earlier ones are listed in `stages`, the last one is the recipe itself, called 'final'."""

    name: Annotated[
        str,
        setting("Name by which later stages refer to this one.", pattern=r"^[a-z][a-z0-9_]*$"),
    ]
    task: StageTask = Translate()
    method: StageMethod
    opponent: Critic = None
    net: StageNet
    train: StageTraining
    data: Annotated[
        DataSettings | None,
        setting("Data of this stage, where they differ from the recipe's."),
    ] = None
    start_from: StartFrom = None
    start_window: StartWindow = field(default_factory=dict)
    mirror: Annotated[
        bool,
        setting("Value of synth.mirror where this stage predicts the image (--answer mean)."),
    ] = False

    @property
    def turns(self) -> Mapping[str, int]:
        """The training's turns, in order, with the steps of each."""
        return self.method.turns if self.opponent is None else self.opponent.turns


@settings
class Recipe:
    """Everything that a result depends on, in addition to the data."""

    title: Annotated[str, setting("Title of the recipe in one line.")]
    data: Annotated[DataSettings, setting("Modalities and patches that the method is trained on.")]
    intensity: Annotated[
        dict[str, AnyIntensity], setting("Map to network units for each modality.")
    ]
    task: StageTask = Translate()
    method: StageMethod
    opponent: Critic = None
    net: StageNet = UNet()
    train: StageTraining = Training()
    synth: Annotated[Synthesis, setting("Synthesis: how images are sampled.")] = Synthesis()
    start_from: StartFrom = None
    start_window: StartWindow = field(default_factory=dict)
    stages: Annotated[list[Stage], setting("Earlier trainings, in their order.")] = field(
        default_factory=list
    )

    @property
    def all_stages(self) -> tuple["FullStage", ...]:
        """The earlier stages and the recipe's own training, which is called 'final'; each with its data."""
        own = {name: getattr(self, name) for name in SHARED}
        earlier = [{**vars(stage), "data": stage.data or self.data} for stage in self.stages]
        return tuple(FullStage(**values) for values in (*earlier, {**own, "name": "final"}))

    @property
    def multiple(self) -> int:
        """Of what height and width are best, for the networks of all stages."""
        return max(stage.net.multiple for stage in self.all_stages)

    @property
    def targets(self) -> list[str]:
        """What the stages make, each modality once."""
        targets = chain.from_iterable(stage.data.target for stage in self.all_stages)
        return list(dict.fromkeys(targets))

    @property
    def modalities(self) -> set[str]:
        """All that some stage is given or makes."""
        sources = (stage.data.source for stage in self.all_stages)
        return set(self.targets).union(*sources)

    def with_maps_of(self, cohort: Cohort, must_draw: bool = True) -> Cohort:
        """The cohort with the modalities that data.physics draws.

        must_draw: raise BadInput where the cohort has no maps; else it stays as it is, since weights that were trained
        on phantoms may be trained further on real scans.
        """
        if self.data.physics is not None:
            cohort = cohort.with_physics(self.data.physics, self.targets, must_draw)
        return cohort

    @property
    def needs_mask(self) -> bool:
        """Whether a task or an earlier one works inside a mask, which must then be found in the sources."""
        return any(stage.task.needs_mask or stage.data.lift > 0 for stage in self.all_stages)

    def finds_mask_of(self, modality: str | None) -> bool:
        """Whether a mask that was found in this modality (None: in none, or in any) can be found in the sources."""
        return not self.needs_mask or modality in {None, *self.data.source}

    @property
    def ignores_outside(self) -> bool:
        """Whether voxels outside the mask are neither read nor made: images are background there."""
        tasks = [self.task, *(stage.task for stage in self.stages if stage.name in self.task.needs)]
        return all(task.inside and task.strip for task in tasks)

    def build(self) -> Method:
        """The method of the last stage, with every earlier one inside it where its task needs it; fresh weights."""
        earlier: dict[str, Method] = {}
        for stage in self.all_stages:
            earlier[stage.name] = stage.build(earlier)
        return earlier["final"]


@dataclass(frozen=True, kw_only=True)
class FullStage(Stage):
    """A stage of a recipe, with the data of the recipe where it has none of its own."""

    data: DataSettings

    def build(self, earlier: Mapping[str, Method]) -> Method:
        """The method with fresh weights; earlier: the finished methods of the stages before it."""
        task = self.task.build(earlier)
        channels = task.channels(self.data.source_names, self.data.target)
        try:
            method = self.method.build(self.net, task, channels)
        except (RuntimeError, ZeroDivisionError, TypeError) as error:
            raise BadInput(
                f"stage '{self.name}': expected a network that can be built, found settings that do not fit together ({str(error).splitlines()[0]}). Change its net table."
            ) from error
        return method if self.opponent is None else self.opponent.build(method)

    @property
    def affordable(self) -> float:
        """Network evaluations that an item of a validation may cost: those of its loss and its image."""
        train = self.train
        # epochs are no steps yet
        known = [number for number in (train.validate_every, train.steps) if number]
        trained = sum(self.turns.values()) * train.batch * min(known, default=1)
        return VALIDATION_SHARE * BACKWARD * trained / train.validation_items

    def validation_sampling(self, synth: Synthesis) -> Synthesis:
        """How images are drawn during training: as synth does where that costs little, else by few steps of ddim."""
        synth = replace(synth, keep_states=0)
        if not self.method.iterates or 1 + synth.evaluations <= self.affordable:
            return synth
        fewest = 2 if synth.grid == "index" else 1  # an index grid has two ends
        steps = min(max(int(self.affordable) - 1, fewest), VALIDATION_STEPS)
        return replace(synth, sampler="ddim", steps=steps, eta=0.0, end=None, close=None)


SHARED = (
    "task",
    "method",
    "opponent",
    "net",
    "train",
    "data",
    "start_from",
    "start_window",
)  # keys of a stage that a recipe has too
