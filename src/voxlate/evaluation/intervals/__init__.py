"""Trust in images: prediction intervals that held-out patients make valid, and scans that are out of distribution."""
