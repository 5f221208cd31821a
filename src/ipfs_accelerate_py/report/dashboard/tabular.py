"""Rows as files that other programs read: CSV, JSON and Parquet, each with the provenance that its rows have."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from ...errors import nearest
from ..data import plain
from .snapshot import Row

MEDIA_TYPES = {"csv": "text/csv", "json": "application/json", "parquet": "application/vnd.apache.parquet"}


def encode(rows: Sequence[Row], columns: Sequence[str], format_: str) -> bytes:
    """The rows in one of MEDIA_TYPES. A column that a row lacks is empty there."""
    if format_ not in MEDIA_TYPES:
        raise nearest(format_, MEDIA_TYPES, "format")
    whole = [{name: plain(row.get(name)) for name in columns} for row in rows]
    if format_ == "json":
        return json.dumps(whole, indent=1, ensure_ascii=False).encode()
    if format_ == "parquet":
        return _parquet(whole, columns)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(["" if row[name] is None else row[name] for name in columns] for row in whole)
    return text.getvalue().encode()


def to_json(value: Any) -> bytes:
    """Compact JSON. Numbers that are not finite become null, dates and the like their text."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False, default=_default).encode()
    except ValueError:  # not-a-number or infinity somewhere: the slower way takes them out
        return json.dumps(plain(value), separators=(",", ":")).encode()


def _default(value: Any) -> Any:
    made = plain(value)
    return str(value) if made is value else made


def _parquet(rows: list[dict[str, Any]], columns: Sequence[str]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays: dict[str, pa.Array] = {}
    for name in columns:
        values = [row[name] for row in rows]
        try:
            arrays[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # a column of several types, as SQL may give
            arrays[name] = pa.array([None if value is None else json.dumps(value) for value in values])
    content = io.BytesIO()
    pq.write_table(pa.table(arrays), content)
    return content.getvalue()
