"""Models on their way in and out: ONNX and the runner without torch, the hub, and networks of other packages.

Only `export`, `graph`, `smaller` and the foreign networks import torch. No wing but `commands` and `page` names this one.
"""
