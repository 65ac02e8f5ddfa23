"""Rows of a table and a digest of them that the same rows give whatever their order and files: prints a line of JSON.

    digest.py FOLDER COLUMN…

FOLDER is a Delta table, or holds Parquet or JSON files. Rows are ordered by the given columns, the first ones being a key.
"""

import hashlib
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable

# Engines differ in widths of numbers and in zones of instants, not in values.
TYPES = {
    "window_start": pa.timestamp("us", "UTC"),
    "product_id": pa.int64(),
    "sales_date": pa.date32(),
    "day": pa.date32(),
    "units": pa.int64(),
    "revenue": pa.decimal128(38, 2),
    # Of streams.
    "category": pa.large_string(),
    "event_time": pa.timestamp("us", "UTC"),
    "event_type": pa.large_string(),
    "events": pa.int64(),
    "latest": pa.timestamp("us", "UTC"),
    "price": pa.decimal128(38, 2),
    "rank": pa.int64(),
    "session_end": pa.timestamp("us", "UTC"),
    "session_start": pa.timestamp("us", "UTC"),
    "user_id": pa.int64(),
    "user_session": pa.large_string(),
    "weight": pa.int64(),
    "worth": pa.decimal128(38, 2),
}


def read(folder, columns):
    if (folder / "_delta_log").exists():
        files = DeltaTable(str(folder)).to_pyarrow_dataset()
    elif any(folder.glob("*.json")):
        files = ds.dataset(str(folder), format="json")
    else:
        files = ds.dataset(str(folder), format="parquet")
    return pa.table({name: column(files, name) for name in columns})


def column(files, name):
    return files.to_table(columns=[name]).column(name).cast(TYPES[name])


def digest(table):
    order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in table.column_names])
    sha = hashlib.sha256()
    for name in table.column_names:
        values = table.column(name).take(order).combine_chunks()
        if values.null_count:
            raise SystemExit(f"{name} holds nulls, which this digest doesn't tell apart")
        for buffer in pa.concat_arrays([values]).buffers()[1:]:
            sha.update(buffer)
    return sha.hexdigest()[:16]


def main():
    table = read(Path(sys.argv[1]), sys.argv[2:])
    print(json.dumps({"rows": table.num_rows, "digest": digest(table)}))


if __name__ == "__main__":
    main()
