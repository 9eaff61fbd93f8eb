"""From a recipe to the method that it describes, with fresh weights."""

from collections.abc import Mapping

from voxlate.errors import BadInput
from voxlate.methods.autoencoding import Autoencoding, AutoencodingSettings
from voxlate.methods.cycle import Cycle, CycleSettings
from voxlate.methods.diffusion import Diffusion, DiffusionSettings
from voxlate.methods.method import Method, Task
from voxlate.methods.opponent import Adversarial, AdversarialSettings
from voxlate.methods.regression import Regression
from voxlate.methods.tasks import Latent, LatentTask, Residual, ResidualTask
from voxlate.nets.autoencoder import AutoencoderNet, KLAutoencoder
from voxlate.nets.interface import Ends
from voxlate.recipe import Recipe, Stage


def build(recipe: Recipe, stage: Stage, earlier: Mapping[str, Method]) -> Method:
    """The method that a stage trains, with fresh weights; earlier: the finished methods of the stages before it."""
    data = stage.data or recipe.data
    if isinstance(stage.method, AutoencodingSettings):
        return Autoencoding(stage.method, _autoencoder(stage))
    task = _task(stage, earlier)
    channels = task.channels(len(data.channels), len(data.target))
    if isinstance(stage.net, KLAutoencoder):
        raise BadInput(
            f"stage '{stage.name}': expected net.kind 'unet', or another that makes images, for this method, found "
            f"'{stage.net.kind}'. Change it."
        )
    noisy = isinstance(stage.method, DiffusionSettings)
    state = channels.state if noisy or channels.known_in_state else 0
    net = stage.net.build(
        Ends(state, channels.condition, channels.state, channels.code, noisy, features=channels.features)
    )
    if isinstance(stage.method, DiffusionSettings):
        return Diffusion(stage.method, net, task, channels.state)
    if isinstance(stage.method, AdversarialSettings):
        generator = Regression(stage.method.data, net, task, channels.known_in_state)
        return Adversarial(stage.method, generator, channels)
    if isinstance(stage.method, CycleSettings):
        sources, targets = channels.condition, channels.state
        back = stage.net.build(Ends(0, targets, sources, noisy=False))
        return Cycle(stage.method, net, back, task, channels)
    return Regression(stage.method, net, task, channels.known_in_state)


def build_all(recipe: Recipe) -> Method:
    """The method of the last stage, with every earlier one inside it where its task needs it; fresh weights."""
    earlier: dict[str, Method] = {}
    for stage in recipe.all_stages:
        earlier[stage.name] = build(recipe, stage, earlier)
    return earlier["final"]


def _task(stage: Stage, earlier: Mapping[str, Method]) -> Task:
    task = stage.task
    if isinstance(task, Residual):
        predictor = earlier[task.predictor]
        assert isinstance(predictor, Regression)  # _check has said so in words
        return ResidualTask(task, predictor, getattr(predictor.net, "feature_channels", ()) if task.asymmetry else ())
    if isinstance(task, Latent):
        autoencoding = earlier[task.autoencoder]
        assert isinstance(autoencoding, Autoencoding)
        return LatentTask(autoencoding.net)
    return task


def _autoencoder(stage: Stage) -> AutoencoderNet:
    if not isinstance(stage.net, KLAutoencoder):
        raise BadInput(f"stage '{stage.name}': expected net.kind 'kl_autoencoder', found '{stage.net.kind}'.")
    return stage.net.build(channels=1)
