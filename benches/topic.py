"""Reads what a topic holds, in a process of its own, so that the memory is its own: prints a line of JSON.

    topic.py BROKERS TOPIC [OUT [KEYED]]

Messages of transactions that weren't committed are left out. Values go to the file OUT, a line each; with KEYED only the last one of
each key that wasn't deleted. Counts are of all messages.
"""

import json
import sys

from confluent_kafka import Consumer, TopicPartition

from broker import PARTITIONS

SILENCE_SECONDS = 60


def messages(brokers, topic):
    """Key and value of each; those of a key in their order."""
    settings = {
        "bootstrap.servers": brokers,
        "group.id": "bench",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
    }
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    at_end = silent = 0
    while at_end < PARTITIONS:
        read = consumer.consume(10_000, timeout=1)
        silent = 0 if read else silent + 1
        if silent == SILENCE_SECONDS:
            raise SystemExit(f"the broker hands on nothing of {topic}")
        for message in read:
            if message.error() is None:
                yield message.key(), message.value()
            elif message.error().name() == "_PARTITION_EOF":
                at_end += 1
            else:
                raise SystemExit(f"{topic} can't be read: {message.error()}")
    consumer.close()


def main():
    brokers, topic, *options = sys.argv[1:]
    counts = {"messages": 0, "bytes": 0, "purchases": 0}
    last = {}
    with open(options[0] if options else "/dev/null", "wb") as out:
        for key, value in messages(brokers, topic):
            counts["messages"] += 1
            counts["bytes"] += len(value or b"")
            counts["purchases"] += b'"event_type":"purchase"' in (value or b"")
            if len(options) == 2:
                last[key] = value
            else:
                out.write(value + b"\n")
        out.writelines(value + b"\n" for value in last.values() if value is not None)
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
