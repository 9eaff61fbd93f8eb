"""Recipes: one TOML file a result, with everything that the result depends on in addition to the data.

`text` reads recipes as plain tables and knows no key; `settings` and `training_settings` hold what the keys mean;
`reading` turns one form into the other and compares the keys with one another; `run_provenance` reads what runs and images
state of their making. The recipes of the package are in `shipped/`.
"""

from voxlate.base.optional import names_of_stub

# The settings import all networks, which takes seconds; a list of recipes needs none of them.
__getattr__, __all__ = names_of_stub(__name__, __file__)
