"""The mean and the spread of several images, of samples, planes or members."""

import numpy as np

from voxlate.base.array_types import Float32
from voxlate.base.slabs import in_slabs, zeros


class Moments:
    """The mean of images, each a mean of samples, and the spread over all samples; one image at a time (Welford 1962).

    All images have the same weight, whatever the number of their samples. With n_i samples of mean m_i and variance v_i of
    image i of M (law of total variance, without bias): (sum (m_i - m)^2 + (1 - 1/n_i) v_i) / (M - sum 1/n_i / M).
    """

    mean: Float32
    squares: Float32
    states: tuple[Float32, ...] = ()  # of the last image

    def __init__(self) -> None:
        self.count = 0
        self.shares = 0.0

    def add(self, image: Float32, sd: Float32 | None, samples: int) -> None:
        """Add an image, and the standard deviation over its samples where there are several."""
        self.count += 1
        self.shares += 1 / samples
        if self.count == 1:
            self.mean = zeros(image.shape, np.float32)
            self.squares = zeros(image.shape, np.float32)
        count = np.float32(self.count)
        within = np.float32(1 - 1 / samples)

        def _squares(squares: Float32, mean: Float32, image: Float32) -> Float32:
            step = image - mean
            return squares + step * (image - (mean + step / count))

        in_slabs(_squares, self.squares, self.mean, image, out=self.squares)
        in_slabs(lambda mean, image: mean + (image - mean) / count, self.mean, image, out=self.mean)
        if sd is not None:
            in_slabs(
                lambda squares, sd: squares + within * np.square(sd),
                self.squares,
                sd,
                out=self.squares,
            )

    def sd(self) -> Float32:
        """The standard deviation over all samples."""
        freedom = np.float32(self.count - self.shares / self.count)
        return in_slabs(lambda squares: np.sqrt(squares / freedom), self.squares)
