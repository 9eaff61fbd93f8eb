"""The five papers: schedules, samplers and noise (`diffusion`), architectures (`nets`), tasks and losses (`methods`).

Nothing here knows a file, a recipe or a loop: this wing and `base` are all that a reader of a paper needs.
"""
