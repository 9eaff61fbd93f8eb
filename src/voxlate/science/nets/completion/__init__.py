"""Networks that make missing modalities from those available: the baselines of paper 003 (Meng et al. 2022)."""
