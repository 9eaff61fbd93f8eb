"""What every wing needs: errors, messages, settings, files, stored documents, the machine, executors, options.

Nothing here knows a scan, a network or a command.
"""
