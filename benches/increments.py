"""Refreshing after a little of the input changed, against building anew: the 22 queries of TPC-H, each as a model.

Each query is a project of its own, so that its figures are its own. The first run builds it over all rows but a hundredth of the orders and their
lines, which DataFusion by itself is asked for, too; those come as further files, and the second run maintains the table; `run --full-refresh` is what computing anew costs; `verify` must
be clean. Seconds are of the whole process, start and commit included, and of the model alone, as the run tells them; sources are Parquet,
read in place. With --changed the rows of that hundredth are there from the start and come to other values; of orders and lines the rows are kept then
(`archive: true`), so that what a replaced file held is still known. scripts/bench --increments runs this.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import time

import datafusion
import duckdb

TABLES = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"]
QUERIES = pathlib.Path(__file__).parent.parent / "tests/it/parity/tpch_queries.rs"


def queries():
    """Name and SQL, from the parity tests' own list."""
    found = re.findall(r'\(\s*"(q\d\d)",\s*"(.*?)",\s*\)', QUERIES.read_text(), re.S)
    return [(name, re.sub(r"\\\n\s*", "", sql)) for name, sql in found]


def generate(work, scale):
    """All tables, the hundredth of orders and lines apart."""
    whole = work / f"tpch-{scale}"
    if not whole.exists():
        subprocess.run(["tpchgen-cli", "parquet", "-s", str(scale), f"--output-dir={whole}.new"], check=True, capture_output=True)
        os.rename(f"{whole}.new", whole)
    parts = work / f"hundredth-{scale}"
    if not parts.exists():
        new = pathlib.Path(f"{parts}.new")
        for table in TABLES:
            (new / table).mkdir(parents=True, exist_ok=True)
            key = {"orders": "o_orderkey", "lineitem": "l_orderkey"}.get(table)
            source = f"read_parquet('{whole}/{table}.parquet')"
            if key is None:
                shutil.copy(whole / f"{table}.parquet", new / table / "all.parquet")
                continue
            hundredth = f"(({key} - {key} % 8) / 4 + {key} % 8) % 100 = 7"
            duckdb.sql(f"COPY (FROM {source} WHERE NOT ({hundredth})) TO '{new}/{table}/all.parquet'")
            duckdb.sql(f"COPY (FROM {source} WHERE {hundredth}) TO '{new}/{table}-new.parquet'")
            values = {
                "orders": "(o_totalprice * 2)::DECIMAL(15, 2) AS o_totalprice, o_orderdate + 1 AS o_orderdate",
                "lineitem": "(51 - l_quantity)::DECIMAL(15, 2) AS l_quantity, l_shipdate + 1 AS l_shipdate",
            }[table]
            duckdb.sql(f"COPY (SELECT * REPLACE ({values}) FROM {source} WHERE {hundredth}) TO '{new}/{table}-changed.parquet'")
        os.rename(new, parts)
    return parts


def project(folder, data, name, sql, is_kept):
    """A project with one model."""
    (folder / "pipelines").mkdir(parents=True)
    (folder / "tidemill.yaml").write_text("version: 1\nname: tpch\nwarehouse: warehouse\n")
    read = [table for table in TABLES if re.search(rf"\b{table}\b", sql)]
    kept = dict.fromkeys(["orders", "lineitem"], ", archive: true") if is_kept else {}
    sources = "".join(
        f"  {table}: {{ connector: files, path: '{data}/{table}/*.parquet', format: parquet, settle: 0s{kept.get(table, '')} }}\n"
        for table in read
    )
    block = sql.replace("\n", "\n      ")
    (folder / "pipelines/tpch.yaml").write_text(f"pipeline: tpch\nsources:\n{sources}models:\n  {name}:\n    sql: |\n      {block}\n")


def run(binary, folder, *arguments):
    """Seconds of the process, and what it printed."""
    began = time.monotonic()
    done = subprocess.run([binary, "-p", folder, *arguments], capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode != 0:
        raise SystemExit(f"{arguments} of {folder}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return seconds, done.stdout


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default="target/release/tidemill")
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("target/bench"))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--changed", action="store_true", help="rows that change instead of new ones")
    options = parser.parse_args()
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    parts = generate(options.work, options.scale)
    binary = str(pathlib.Path(options.binary).resolve())
    print(f"TPC-H at scale {options.scale}, medians of {options.turns}; load {os.getloadavg()[0]:.1f}\n")
    header = ["query", "first build s", "datafusion s", "ratio", "duckdb s", "strategy", f"1 % {'changed' if options.changed else 'new'} rows s", "anew s", "ratio", "model alone s", "anew s", "ratio"]
    print("| " + " | ".join(header) + " |\n|---|---:|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|")
    for name, sql in queries():
        if options.only and name not in options.only:
            continue
        first, batch, refresh, anew, peer, strategy = [], [], [], [], [], "?"
        alone = ([], [])
        for _ in range(options.turns):
            folder, data = options.work / "increments", options.work / "data"
            for old in (folder, data):
                shutil.rmtree(old, ignore_errors=True)
            shutil.copytree(parts, data, copy_function=os.link)
            project(folder, data, name, sql, options.changed)
            if options.changed:
                arrive(data, "new")
            batch.append(fusion(data, sql))
            first.append(run(binary, folder, "run")[0])
            arrive(data, "changed" if options.changed else "new")
            seconds, out = run(binary, folder, "run", "--format", "json")
            refresh.append(seconds)
            told = json.loads(out.splitlines()[-1])
            strategy = told["strategy"]
            alone[0].append(told["seconds"])
            run(binary, folder, "verify")
            seconds, out = run(binary, folder, "run", "--full-refresh", "--format", "json")
            anew.append(seconds)
            alone[1].append(json.loads(out.splitlines()[-1])["seconds"])
            peer.append(duck(data, sql))
        m = statistics.median
        figures = [f"{m(first):.2f}", f"{m(batch):.2f}", f"{m(first) / m(batch):.2f}×", f"{m(peer):.2f}", strategy]
        for new, whole in ((refresh, anew), alone):
            figures += [f"{m(new):.2f}", f"{m(whole):.2f}", f"{m(new) / m(whole):.0%}"]
        print(f"| {name} | " + " | ".join(figures) + " |", flush=True)


def arrive(data, which):
    """The hundredth of orders and lines, in the place of what was there of it."""
    for table in ("orders", "lineitem"):
        os.link(data / f"{table}-{which}.parquet", data / f"{table}-next")
        os.rename(data / f"{table}-next", data / table / "new.parquet")


def fusion(data, sql):
    """One run of the query in DataFusion over the same files, its rows thrown away."""
    base = datafusion.SessionContext(datafusion.SessionConfig({"datafusion.sql_parser.parse_float_as_decimal": "true"}))
    for table in TABLES:
        base.register_parquet(table, f"{data}/{table}/")
    began = time.monotonic()
    base.sql(sql).collect()
    return time.monotonic() - began


def duck(data, sql):
    """One run of the query in DuckDB over the same files, its rows thrown away."""
    base = duckdb.connect()
    for table in TABLES:
        base.sql(f"CREATE VIEW {table} AS FROM read_parquet('{data}/{table}/*.parquet')")
    began = time.monotonic()
    base.sql(sql).fetchall()
    return time.monotonic() - began


if __name__ == "__main__":
    main()
