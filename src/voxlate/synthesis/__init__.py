"""Synthesis of a case or of a folder of cases: inputs, planes, samples, intervals, and the folder of outputs.

Nothing here trains or computes a score; its own network is a graph of ONNX, that of a run comes from `training` (torch).
"""
