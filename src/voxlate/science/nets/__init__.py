"""Network architectures, one file each, and the layers that they share.

Nothing here knows noise, losses or data: a network takes a NetworkInput and gives an Output.
"""
