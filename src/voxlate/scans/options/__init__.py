"""Options of the commands that read cohorts."""
