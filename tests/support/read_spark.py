"""Reads a Delta table with Spark and prints its rows as JSON, sorted by `id`.

Arguments: the folder with Delta's jars, the table's path.
"""

import datetime
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql.types import TimestampType

from read_delta import plain


def main():
    # Spark gives Python instants in the local zone.
    os.environ["TZ"] = "UTC"
    time.tzset()
    jars, path = sys.argv[1:]
    settings = {
        "spark.databricks.delta.snapshotPartitions": "1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "512m",
        "spark.jars": ",".join(str(jar) for jar in Path(jars).glob("delta-*.jar")),
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.warehouse.dir": tempfile.mkdtemp(),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    builder = SparkSession.builder.master("local[1]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    frame = spark.read.format("delta").load(path)
    instants = {field.name for field in frame.schema if isinstance(field.dataType, TimestampType)}
    rows = []
    for row in frame.collect():
        cells = row.asDict(recursive=True)
        for name in instants:
            if cells[name] is not None:
                cells[name] = cells[name].replace(tzinfo=datetime.timezone.utc)
        rows.append({name: plain(value) for name, value in cells.items()})
    spark.stop()
    json.dump(sorted(rows, key=lambda row: row["id"]), sys.stdout)


main()
