"""A trained model as a folder that runs without torch: its export, and the runner.

Only `export` and `graph` import torch. All that the runner imports works with NumPy, nibabel and onnxruntime alone.
"""
