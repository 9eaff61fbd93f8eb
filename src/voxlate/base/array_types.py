"""The types of arrays by the kind of their values."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
AnyArray = NDArray[Any]
UInt8 = NDArray[np.uint8]
