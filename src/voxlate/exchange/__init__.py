"""Models on their way in and out: ONNX and the runner without torch, the hub, and published weights.

Only `export`, `graph`, `smaller` and the published weights import torch. No wing but `commands` and `page` names this one.
"""
