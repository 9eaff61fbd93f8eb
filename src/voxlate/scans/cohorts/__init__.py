"""The cases of a cohort and their files: found, chosen, split, and de-identified."""
