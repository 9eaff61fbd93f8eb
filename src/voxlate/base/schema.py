"""pydantic's names; where it is not installed (voxlate-run), those of `plain_schema`, which fill no recipe."""

import typing

try:
    from pydantic import ConfigDict as ConfigDict
    from pydantic import Field as Field
    from pydantic import GetCoreSchemaHandler as GetCoreSchemaHandler
    from pydantic import StrictStr as StrictStr
    from pydantic import StringConstraints as StringConstraints
    from pydantic import TypeAdapter as TypeAdapter
    from pydantic import ValidationError as ValidationError
    from pydantic import ValidationInfo as ValidationInfo
    from pydantic_core import SchemaValidator as SchemaValidator
    from pydantic_core import core_schema as core_schema
    from typing_extensions import TypedDict as TypedDict  # pydantic needs it before Python 3.12
except ModuleNotFoundError:
    if not typing.TYPE_CHECKING:
        from typing import TypedDict as TypedDict

        from voxlate.base.plain_schema import Field as Field
        from voxlate.base.plain_schema import StrictStr as StrictStr
        from voxlate.base.plain_schema import TypeAdapter as TypeAdapter
        from voxlate.base.plain_schema import ValidationError as ValidationError

        ConfigDict, StringConstraints = dict, Field
        GetCoreSchemaHandler = SchemaValidator = ValidationInfo = typing.Any
        core_schema = None
