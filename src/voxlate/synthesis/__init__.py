"""Synthesis with trained models, of a case or a folder of cases.

Sampling belongs to diffusion, reading of scans to data; nothing here trains or computes a score.
"""
