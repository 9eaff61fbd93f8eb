"""Options of the commands that hand images on."""
