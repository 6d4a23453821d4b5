"""The JSON Schema of a YAML file of options, for editors. It knows names, types and limits of single values.

What cannot be together, and what the system must have (files, environments), only `subpool config check` knows.
"""

from __future__ import annotations

from typing import Any, Final

from .config import ServerConfig

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema, as plain data."""
    made = ServerConfig.model_json_schema()
    for model in (made, *made["$defs"].values()):
        for field in model["properties"].values():
            field.pop("title", None)
            field.pop("group", None)
            field.pop("option", None)
            if field.pop("secret", False):
                field["writeOnly"] = True
    return {"$schema": DIALECT, **made, "title": "subpool.yaml"}
