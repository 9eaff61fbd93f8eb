"""Starters: trained weights that come with the package, each a folder with the files of a run and a card."""
