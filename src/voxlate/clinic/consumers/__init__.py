"""Synthesised CT in the units of its users: treatment planning, proton range, focused ultrasound, PET."""
