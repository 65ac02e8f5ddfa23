"""One run of one peer in a process of its own, so that its memory is its own: prints a line of JSON.

    peers.py ENGINE MODEL (build|totals) DATA OUT

`build` writes the model as Parquet into the folder OUT, `totals` computes it and sums it up. The clock starts after imports.
Threads are as many as there are cores, as by default in all of them; files are compressed as Tidemill's are.
"""

import json
import sys
import time
from pathlib import Path

ZONE = "America/Sao_Paulo"
COMPRESSION, LEVEL = "zstd", 1
TOTALS = "SELECT count(*) AS groups, sum(units) AS units, sum(revenue) AS revenue FROM ({sql}) AS model"

DATAFUSION = {
    "product_sales": f"""
        SELECT window_start, product_id, CAST(window_start AT TIME ZONE '{ZONE}' AS date) AS sales_date, units, revenue
        FROM (
            SELECT date_bin(INTERVAL '1 minute', event_time) AS window_start, product_id, count(*) AS units,
                coalesce(sum(price), 0) AS revenue
            FROM events WHERE event_type = 'purchase' GROUP BY 1, 2) AS per_minute""",
    "daily_purchases": f"""
        SELECT CAST(event_time AT TIME ZONE '{ZONE}' AS date) AS day, count(*) AS units, coalesce(sum(price), 0) AS revenue
        FROM events WHERE event_type = 'purchase' GROUP BY 1""",
}

# An instant without zone is UTC's wall clock, which DuckDB truncates without asking its calendar.
DUCKDB = {
    "product_sales": """
        SELECT timezone('UTC', minute) AS window_start, product_id, CAST(timezone('UTC', minute) AS date) AS sales_date, units,
            revenue
        FROM (
            SELECT date_trunc('minute', timezone('UTC', event_time)) AS minute, product_id, count(*) AS units,
                coalesce(sum(price), 0) AS revenue
            FROM events WHERE event_type = 'purchase' GROUP BY 1, 2) AS per_minute""",
    "daily_purchases": """
        SELECT CAST(event_time AS date) AS day, count(*) AS units, coalesce(sum(price), 0) AS revenue
        FROM events WHERE event_type = 'purchase' GROUP BY 1""",
}


def datafusion(model, action, data, out):
    import datafusion as df

    def run():
        context = df.SessionContext(df.SessionConfig({"datafusion.execution.time_zone": ZONE}))
        context.register_parquet("events", f"{data}/events/")
        if action == "totals":
            return context.sql(TOTALS.format(sql=DATAFUSION[model])).collect()
        context.sql(DATAFUSION[model]).write_parquet(f"{out}/", COMPRESSION, LEVEL)

    return run


def duckdb(model, action, data, out):
    import duckdb as duck

    def run():
        connection = duck.connect()
        connection.execute(f"SET TimeZone = '{ZONE}'")
        connection.execute("SET preserve_insertion_order = false")
        connection.execute(f"CREATE VIEW events AS SELECT * FROM read_parquet('{data}/events/*.parquet')")
        if action == "totals":
            return connection.execute(TOTALS.format(sql=DUCKDB[model])).fetchall()
        to = f"FORMAT parquet, COMPRESSION {COMPRESSION}, COMPRESSION_LEVEL {LEVEL}"
        connection.execute(f"COPY ({DUCKDB[model]}) TO '{out}/table.parquet' ({to})")

    return run


def polars(model, action, data, out):
    import polars as pl

    def run():
        purchases = pl.scan_parquet(f"{data}/events/*.parquet").filter(pl.col("event_type") == "purchase")
        sums = [pl.len().cast(pl.Int64).alias("units"), pl.col("price").sum().alias("revenue")]
        if model == "product_sales":
            minute = pl.col("event_time").dt.truncate("1m").alias("window_start")
            table = purchases.group_by(minute, "product_id").agg(sums)
            day = pl.col("window_start").dt.convert_time_zone(ZONE).dt.date().alias("sales_date")
            table = table.select("window_start", "product_id", day, "units", "revenue")
        else:
            day = pl.col("event_time").dt.convert_time_zone(ZONE).dt.date().alias("day")
            table = purchases.group_by(day).agg(sums)
        if action == "totals":
            totals = table.select(pl.len().alias("groups"), pl.col("units").sum(), pl.col("revenue").sum())
            return totals.collect(engine="streaming")
        table.sink_parquet(f"{out}/table.parquet", compression=COMPRESSION, compression_level=LEVEL, engine="streaming")

    return run


def memory_peak_kb():
    """Of this process, as Linux counts it."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def main():
    engine, model, action, data, out = sys.argv[1:]
    run = {"datafusion": datafusion, "duckdb": duckdb, "polars": polars}[engine](model, action, data, out)
    started = time.perf_counter()
    run()
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "memory_kb": memory_peak_kb()}))


if __name__ == "__main__":
    main()
