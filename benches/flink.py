"""One run of one Flink SQL job over a topic, to a topic, in a process of its own: prints a line of JSON.

    flink.py BROKERS TOPIC PRODUCTS QUERY OUT FOLDER

QUERY is a file of streams/flink, OUT the topic that its rows go to, FOLDER where checkpoints are kept. The job ends at the
messages that are there when it starts. The clock starts when the JVM is up and tables are declared, and stops when the job has ended
and its last transaction is committed: parsing, planning, and start of Flink's cluster in this JVM are in it.
"""

import json
import os
import sys
import time
from pathlib import Path

from pyflink.common import Configuration
from pyflink.table import EnvironmentSettings, TableEnvironment

CONNECTOR = Path(__file__).parent.parent / "target/flink/flink-sql-connector-kafka-5.0.0-2.2.jar"
PARALLELISM = 2

# Rows of the sink's topic. Those with a key are updated: upsert-kafka.
SINKS = {
    "filter": "event_time TIMESTAMP_LTZ(3), product_id BIGINT, price DECIMAL(12, 2), user_id BIGINT, user_session STRING",
    "tumble": "window_start TIMESTAMP(3), product_id BIGINT, units BIGINT, revenue DECIMAL(38, 2), latest TIMESTAMP_LTZ(3)",
    "tumble_many": "window_start TIMESTAMP(3), user_session STRING, events BIGINT, worth DECIMAL(38, 2)",
    "sessions": """user_id BIGINT, session_start TIMESTAMP(3), session_end TIMESTAMP_LTZ(3), events BIGINT,
        worth DECIMAL(38, 2)""",
    "enrich": """event_time TIMESTAMP_LTZ(3), event_type STRING, product_id BIGINT, price DECIMAL(12, 2), user_id BIGINT,
        category STRING, weight INT""",
    "top": """category STRING, `rank` BIGINT, product_id BIGINT, revenue DECIMAL(38, 2),
        PRIMARY KEY (category, `rank`) NOT ENFORCED""",
}

SETTINGS = {
    "pipeline.jars": CONNECTOR.as_uri(),
    "parallelism.default": PARALLELISM,
    "table.local-time-zone": "UTC",
    "execution.checkpointing.interval": "5 s",
    "execution.checkpointing.mode": "EXACTLY_ONCE",
    # Not by default, and made for speed.
    "pipeline.object-reuse": "true",
}
# For ranks over groups, which are updated by each event unless events are taken together. Windows close once anyway.
TOGETHER = {
    "table.exec.mini-batch.enabled": "true",
    "table.exec.mini-batch.allow-latency": "1 s",
    "table.exec.mini-batch.size": 50_000,
    "table.optimizer.agg-phase-strategy": "TWO_PHASE",
}

EVENTS = """
CREATE TABLE events (
    event_time TIMESTAMP_LTZ(3),
    event_type STRING,
    product_id BIGINT,
    category_id BIGINT,
    category_code STRING,
    brand STRING,
    price DECIMAL(12, 2),
    user_id BIGINT,
    user_session STRING,
    WATERMARK FOR event_time AS event_time - INTERVAL '10' SECOND
) WITH (
    'connector' = 'kafka',
    'properties.bootstrap.servers' = '{brokers}',
    'topic' = '{topic}',
    'scan.startup.mode' = 'earliest-offset',
    'scan.bounded.mode' = 'latest-offset',
    'format' = 'json',
    'json.timestamp-format.standard' = 'ISO-8601'
)"""

PRODUCTS = """
CREATE TABLE products (number BIGINT, product_category_name STRING, product_weight_g INT)
WITH ('connector' = 'filesystem', 'path' = '{file}', 'format' = 'json')"""

SINK = """
CREATE TABLE made ({columns}) WITH (
    {connector},
    'properties.bootstrap.servers' = '{brokers}',
    'properties.transaction.timeout.ms' = '600000',
    'topic' = '{out}',
    'sink.delivery-guarantee' = 'exactly-once',
    'sink.transactional-id-prefix' = '{out}'
)"""
APPENDS = "'connector' = 'kafka', 'format' = 'json'"
UPSERTS = "'connector' = 'upsert-kafka', 'key.format' = 'json', 'value.format' = 'json'"


def tables(name, folder):
    settings = Configuration()
    for key, value in (SETTINGS | (TOGETHER if name == "top" else {})).items():
        settings.set_string(key, str(value))
    settings.set_string("execution.checkpointing.dir", folder.as_uri())
    return TableEnvironment.create(EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(settings).build())


def memory_peak_kb():
    """Of the JVM, this process's child, as Linux counts it."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except OSError:
            continue
        if int(lines["PPid"]) == os.getpid() and lines["Name"].strip() == "java":
            return int(lines["VmHWM"].split()[0])
    return 0


def main():
    brokers, topic, products, query, out, folder = sys.argv[1:]
    query = Path(query)
    name = query.stem
    flink = tables(name, Path(folder))
    flink.execute_sql(EVENTS.format(brokers=brokers, topic=topic))
    flink.execute_sql(PRODUCTS.format(file=Path(products).as_uri()))
    connector = UPSERTS if "PRIMARY KEY" in SINKS[name] else APPENDS
    flink.execute_sql(SINK.format(columns=SINKS[name], connector=connector, brokers=brokers, out=out))
    started = time.perf_counter()
    flink.execute_sql(f"INSERT INTO made {query.read_text()}").wait()
    print(json.dumps({"seconds": time.perf_counter() - started, "memory_kb": memory_peak_kb()}))


if __name__ == "__main__":
    main()
