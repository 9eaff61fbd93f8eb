"""The four networks of paper 001 (Koch et al.): U-Net, ADM, U-ViT and DiT, as their published weights need them.

The order of modules is that of the published files; nothing here is meant to be started from.
"""
