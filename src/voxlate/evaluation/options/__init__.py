"""Options of the commands that score and calibrate."""
