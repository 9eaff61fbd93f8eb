"""Synthesis of a case or of a folder of cases: inputs, planes, samples, intervals, and the folder of outputs.

Nothing here trains or computes a score; networks come from `training` (torch) and `exchange` (ONNX).
"""
