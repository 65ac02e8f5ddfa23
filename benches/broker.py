"""A Kafka broker of its own on the loopback, over a folder that goes with it, and its topics. Knows no engine."""

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from confluent_kafka.admin import AdminClient, NewTopic

import measure

HERE = Path(__file__).parent
JARS = HERE.parent / "target/drivers/kafka-4.3.1"
VERSION = JARS.name
PARTITIONS = 4
# A broker's start takes seconds; where the machine is busy, many.
START_SECONDS = 120
CLUSTER = "dGlkZW1pbGwtYmVuY2gtMQ"

PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={folder}/log
num.partitions={partitions}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=2097152
log.retention.ms=-1
"""


def free_ports(count):
    """Ports of the loopback at which nobody listens, asked for together so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Broker:
    """Runs as long as the `with` that it is used in."""

    def __init__(self, folder):
        self.folder, self.process = folder, None

    def __enter__(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        port, controller = free_ports(2)
        self.address = f"127.0.0.1:{port}"
        properties = self.folder / "server.properties"
        filled = PROPERTIES.format(port=port, controller=controller, folder=self.folder, partitions=PARTITIONS)
        properties.write_text(filled)
        java = ["java", "-Xms512m", "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{JARS}/*"]
        log = self.folder / "broker.log"
        with log.open("wb") as output:
            formatting = [*java, "kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER, "--config", properties]
            if subprocess.run(formatting, stdout=output, stderr=output).returncode != 0:
                raise measure.Failed(f"Kafka's folder can't be formatted: {log.read_text()}")
            self.process = subprocess.Popen([*java, "kafka.Kafka", properties], stdout=output, stderr=output)
        self.admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        try:
            self.wait(log)
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait(self, log):
        until = time.monotonic() + START_SECONDS
        while True:
            if self.process.poll() is not None or time.monotonic() > until:
                raise measure.Failed(f"the broker isn't ready: {log.read_text()}")
            try:
                return self.admin.list_topics(timeout=1)
            except Exception:
                continue

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def make(self, topic):
        self.admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result()

    def drop(self, topic):
        self.admin.delete_topics([topic])[topic].result()

    def read(self, topic, *options):
        """What topic.py says of a topic."""
        return json.loads(measure.run([sys.executable, HERE / "topic.py", self.address, topic, *options])[2])
