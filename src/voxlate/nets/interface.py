"""What goes into a network, and what comes out."""

from dataclasses import dataclass

from voxlate.errors import BadInput


@dataclass(frozen=True)
class Ends:
    """Channels of x (0: a regressor, which sees images only), of Condition.images, and of the answer.

    code_bits: length of Condition.code; noisy: whether the noise level is told; features: channels of the maps in
    Condition.features.
    """

    state: int
    condition: int
    out: int
    code_bits: int = 0
    noisy: bool = True
    features: tuple[int, ...] = ()

    @property
    def ins(self) -> int:
        """Channels of x and the images together."""
        return self.state + self.condition

    def only_images(self, kind: str, noise: bool = False) -> None:
        """Raise BadInput where a network of a kind would be told more than images (and with `noise` their noise)."""
        told = {"a configuration code": self.code_bits, "feature maps": self.features}
        if not noise:
            told["the noise level"] = self.noisy
        if more := next((name for name, there in told.items() if there), None):
            also = " and their noise" if noise else ""
            raise BadInput(
                f"net.kind: expected a network that is told {more}, found '{kind}', which is told images{also} alone. "
                "Set net.kind to 'unet'."
            )
