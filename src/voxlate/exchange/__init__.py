"""Models on their way in and out: the export to ONNX, the hub, and published weights.

An exported model is opened by `synthesis`. No wing but `commands` and `page` names this one.
"""
