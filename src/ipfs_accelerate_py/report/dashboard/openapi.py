"""The OpenAPI document of the dashboard's addresses, made from the views themselves."""

from __future__ import annotations

from typing import Any

from .recommended import ARGUMENTS
from .sql import ROWS_UP_TO, SECONDS_UP_TO
from .tables import FACETS
from .tabular import MEDIA_TYPES
from .views import COLUMNS, VIEWS

SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The token that the command printed."},
    "query": {"type": "apiKey", "in": "query", "name": "token"},
}


def document(*, token: bool) -> dict[str, Any]:
    """OpenAPI 3.1, as plain values; with ``token`` it says how the token is sent."""
    formats = _parameter("format", "Rows alone, as a file, instead of rows and figure.", {"enum": list(MEDIA_TYPES)})
    facets = [
        _parameter(name, "Keep rows that have one of these values.", {"type": "array", "items": {"type": "string"}})
        for name in FACETS
    ]
    whole = _parameter("limit", "0 gives rows too that a page would not draw.", {"enum": [0]})
    search = _parameter("search", "Keep rows that have all of these words.", {"type": "string"})
    paths: dict[str, Any] = {
        "/api/status": _get("The store, the number of its launches, its version, and whether a campaign runs on it."),
        "/api/views": _get("Names, titles and questions of the views, and what kinds and marks mean."),
        "/api/cells/{cell}": _get(
            "One cell whole, with the samples of every launch and the command that repeats it.",
            [
                {
                    **_parameter("cell", "The cell's id, a field of most rows.", {"type": "string"}),
                    "in": "path",
                    "required": True,
                }
            ],
        ),
        "/api/sql": _get(
            f"One SELECT on the store, at most {ROWS_UP_TO:,} rows and {SECONDS_UP_TO:g} seconds. It cannot write, nor read a file.",
            [{**_parameter("query", "The SQL text.", {"type": "string"}), "required": True}, formats],
        ),
    }
    kinds = {int: "integer", float: "number", str: "string"}
    paths["/api/recommend"] = _get(
        "Every candidate for a model and what is asked of it, with reasons.",
        [_parameter(name, "As of select_optimal_hardware.", {"type": kinds[kind]}) for name, kind in ARGUMENTS.items()],
    )
    for view in VIEWS.values():
        row = {key: _property(key) for key in (*view.columns, "provenance")}
        schema = {"type": "object", "properties": {"rows": {"type": "array", "items": {"type": "object", "properties": row}}}}
        paths[f"/api/views/{view.name}"] = _get(f"{view.title}. {view.question}", [*facets, search, whole, formats], schema)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ipfs-accelerate dashboard",
            "version": "1",
            "description": "What a store of measurements holds. Read-only: every address answers GET alone.",
        },
        "paths": paths,
        **({"components": {"securitySchemes": SCHEMES}, "security": [{name: []} for name in SCHEMES]} if token else {}),
    }


def _get(summary: str, parameters: list[dict[str, Any]] | None = None, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    error = {"type": "object", "properties": {"error": {"type": "string"}}}
    return {
        "get": {
            "summary": summary,
            "parameters": parameters or [],
            "responses": {
                "200": {
                    "description": "The answer.",
                    "content": {"application/json": {"schema": schema or {"type": "object"}}},
                },
                "400": {
                    "description": "What was asked, or the store, is at fault: one sentence.",
                    "content": {"application/json": {"schema": error}},
                },
            },
        }
    }


def _parameter(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _property(key: str) -> dict[str, str]:
    label, unit = COLUMNS[key]
    return {"description": f"{label}, {unit}" if unit else label}
