"""Recipes: one TOML file a result, with everything that the result depends on in addition to the data.

`text` reads recipes as plain tables and knows no key; `settings`, `training` and `optimiser` hold what the keys mean;
`checks` compares them with one another; `reading` turns one form into the other; `provenance` reads what runs and images
state of their making. The recipes of the package are in `shipped/`.
"""

from voxlate.base.optional import names_of_stub

# The settings import all networks, which takes seconds; a list of recipes needs none of them.
__getattr__, __all__ = names_of_stub(__name__, __file__)
