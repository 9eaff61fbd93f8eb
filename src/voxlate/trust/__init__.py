"""How far images can be trusted: intervals that held-back patients have made valid, and scans unlike the training's."""
