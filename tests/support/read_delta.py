"""Reads a Delta table with the deltalake package and with Polars and prints the rows of both as JSON, sorted by `id`.

Arguments: the table's path or URL, and a version. STORE_OPTIONS: options of its object store, as JSON.
"""

import datetime
import decimal
import json
import os
import sys

import polars
from deltalake import DeltaTable


def plain(value):
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(datetime.timezone.utc)
        return value.isoformat()
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and value != value:
        return "NaN"
    return value


def main():
    path = sys.argv[1]
    version = int(sys.argv[2]) if len(sys.argv) > 2 else None
    options = json.loads(os.environ.get("STORE_OPTIONS", "{}"))
    table = DeltaTable(path, version=version, storage_options=options)
    rows = polars.from_arrow(table.to_pyarrow_table()).to_dicts()
    by_polars = polars.read_delta(path, version=version, storage_options=options).to_dicts()
    out = {
        "version": table.version(),
        "partition_columns": table.metadata().partition_columns,
        "deltalake": sorted(([plain(row) for row in rows]), key=lambda row: row["id"]),
        "polars": sorted(([plain(row) for row in by_polars]), key=lambda row: row["id"]),
    }
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main()
