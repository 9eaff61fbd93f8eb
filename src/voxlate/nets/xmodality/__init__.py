"""The four networks of paper 001 (Koch et al.): U-Net, ADM, U-ViT and DiT, as their published weights have them."""
