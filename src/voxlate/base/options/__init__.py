"""The declaration of an option, and the options that commands of several wings share."""
