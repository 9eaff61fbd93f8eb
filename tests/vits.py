"""A tiny vision transformer with random weights, of pictures with 3 x 3 patches of 16 pixels."""

from pathlib import Path
from typing import Any

import pytest


def save_vit(folder: Path, layers: int) -> Any:
    """Write the folder of one and return it; the test is left out where transformers is not installed."""
    transformers = pytest.importorskip("transformers", reason="the extra 'features' is not here")
    config = transformers.ViTConfig(
        hidden_size=24,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=48,
        patch_size=16,
    )
    model = transformers.ViTModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(folder)
    return model
