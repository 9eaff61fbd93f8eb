"""The JSON schemas of options, of which agents' tools and the form of the page are made."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from voxlate.base.config import adapter
from voxlate.base.option import Parameters, table_of


class FirstTypes(GenerateJsonSchema):
    """Makes JSON schemas of the first type of each union, which is what the command line reads."""

    def nullable_schema(self, schema: Any) -> dict[str, Any]:
        """The schema of a type that may be None."""
        return self.generate_inner(schema["schema"])

    def dict_schema(self, schema: Any) -> dict[str, Any]:
        """A table, whose keys may have values of several types."""
        return {"type": "object"}

    def union_schema(self, schema: Any) -> dict[str, Any]:
        """The schema of the first type."""
        first = schema["choices"][0]
        return self.generate_inner(first[0] if isinstance(first, tuple) else first)


def schemas_of(parameters: Parameters) -> dict[str, dict[str, Any]]:
    """The JSON schemas of arguments and options: their types, ranges, defaults and help."""
    stated = adapter(table_of(parameters)).json_schema(schema_generator=FirstTypes)["properties"]
    absent: tuple[Any, ...] = (None, (), [])
    return {
        name: {
            key: value for key, value in schema.items() if key != "title" and value not in absent
        }
        for name, schema in stated.items()
    }
