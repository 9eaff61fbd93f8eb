"""Prediction intervals of images, which held-out patients make valid."""
