"""Keeps `tidemill up` at work on a real Kafka for long, and fails where anything grows that should stand still. Prints Markdown.

scripts/soak runs this. Linux only: it looks into /proc.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from statistics import median

import measure
from broker import VERSION, Broker, free_ports

PROJECT = Path(__file__).parent / "soak"
TOPIC = "soak.events"
SINKS = ["soak.by_product", "soak.by_minute"]
MODELS = ["purchases", "by_product", "by_minute", "best", "passed"]
# How often the process is looked at; more often in a short run.
EVERY_SECONDS = 10
# So many looks at least, for medians of a tenth.
LOOKS = 60
TENTHS = 10
# Until `up` answers, or has ended after it was asked to: more than `shutdown_timeout`.
WAIT_SECONDS = 120
# Products that are sold, and days of the shop's that a day of sending takes in.
ORDERS, SHOP_DAYS = 1_000, 100
MEGABYTE = 1 << 20

# What is looked at: its name, how far the last third's median may be above the middle third's as a factor and beside it, or None
# where growth is meant: messages are kept, records and files that nothing names stay for 7 days, windows come.
WATCHED = [
    ("memory MB", 1.10, 16),
    ("open files", 1.10, 8),
    ("threads", 1.10, 4),
    ("ms a step", 1.50, 10),
    ("named files", 1.25, 24),
    ("record kB", 1.25, 8),
    ("records", None, None),
    ("files", None, None),
    ("files MB", None, None),
    ("log kB", None, None),
    ("waiting", 1.50, 1_000),
]


class Up:
    """`tidemill up` in a folder of its own."""

    def __init__(self, args, folder, env, console):
        self.args, self.folder, self.env, self.console = args, folder, os.environ | env, console
        self.log, self.process, self.before = folder / "up.log", None, (0.0, 0.0)

    def command(self, *arguments):
        return [self.args.binary, "--project", self.folder, *arguments]

    def start(self):
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self.command("up", "--quiet"), stdout=log, stderr=log, env=self.env)
        until = time.monotonic() + WAIT_SECONDS
        while True:
            self.check()
            try:
                return self.metrics()
            except OSError:
                if time.monotonic() > until:
                    raise measure.Failed("up doesn't answer") from None
                time.sleep(0.1)

    def check(self):
        if self.process.poll() is not None:
            raise measure.Failed(f"up ended with {self.process.returncode}: {self.log.read_text()[-2000:]}")

    def metrics(self):
        with urllib.request.urlopen(f"http://{self.console}/metrics", timeout=WAIT_SECONDS) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(number) for name, number in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}

    def look(self):
        """All that is watched, now."""
        self.check()
        told, process = self.metrics(), Path(f"/proc/{self.process.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        seen = {"memory MB": int(status["VmRSS"].split()[0]) / 1024, "threads": int(status["Threads"])}
        seen["open files"] = len(list((process / "fd").iterdir()))
        steps = told["tidemill_step_duration_seconds_sum"], told["tidemill_step_duration_seconds_count"]
        seconds, count = (now - before for now, before in zip(steps, self.before))
        self.before = steps
        # Between two looks there may be none.
        seen["ms a step"] = 1000 * seconds / count if count else None
        seen["waiting"] = sum(number for name, number in told.items() if name.startswith("tidemill_source_lag_rows"))
        return seen | self.stored()

    def stored(self):
        """What stands in the warehouse and the log."""
        records = sorted((self.folder / "warehouse/_tidemill/events/commits").glob("*.json"))
        newest = records[-1].read_bytes() if records else b""
        files = list(walk(self.folder / "warehouse"))
        return {
            "named files": newest.count(b".parquet"),
            "record kB": len(newest) / 1000,
            "records": len(records),
            "files": len(files),
            "files MB": sum(size for _, size in files) / MEGABYTE,
            "log kB": self.log.stat().st_size / 1000,
        }

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=WAIT_SECONDS)
        if code != 0:
            raise measure.Failed(f"up ended with {code}: {self.log.read_text()[-2000:]}")


def walk(folder):
    """Files with their sizes; those that go meanwhile aren't among them."""
    for entry in os.scandir(folder):
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from walk(entry.path)
            else:
                yield entry.path, entry.stat().st_size
        except FileNotFoundError:
            continue


def middle(looks, name):
    """The median of what was seen; 0 where nothing was."""
    seen = [look[name] for look in looks if look[name] is not None]
    return median(seen) if seen else 0


def growing(looks):
    """What grew from the middle third of the run to the last one, in words."""
    third = len(looks) // 3
    for name, factor, beside in WATCHED:
        if factor is None:
            continue
        before, last = (middle(part, name) for part in (looks[third : 2 * third], looks[-third:]))
        if last > before * factor + beside:
            yield f"{name}: {before:,.1f} in the middle third, {last:,.1f} in the last, more than {factor:g} times and {beside:,} above"


def table(looks, seconds):
    rows = []
    for tenth in range(TENTHS):
        part = looks[tenth * len(looks) // TENTHS : (tenth + 1) * len(looks) // TENTHS]
        figures = [f"{middle(part, name):,.1f}".removesuffix(".0") for name, *_ in WATCHED]
        rows.append([f"{seconds * tenth / TENTHS:,.0f} s", *figures])
    return measure.table(["from", *(name for name, *_ in WATCHED)], rows)


def soak(args, broker, up):
    broker.make(TOPIC)
    for sink in SINKS:
        broker.make(sink)
    arguments = ["--topic", TOPIC, "--rate", args.rate, "--events", args.rate * (args.seconds + 86_400), "--days", SHOP_DAYS]
    arguments += ["--orders", ORDERS, "--seed", args.seed, "--late", 0.01, "--duplicates", 0.01, "--malformed", 0.001]
    up.start()
    generator = subprocess.Popen(
        [args.binary, "generate", "--kafka", broker.address, *map(str, arguments)], stdout=subprocess.DEVNULL
    )
    try:
        looks, every, began = [], min(EVERY_SECONDS, args.seconds / LOOKS), time.monotonic()
        while time.monotonic() - began < args.seconds:
            time.sleep(max(began + every * (len(looks) + 1) - time.monotonic(), 0))
            if generator.poll() is not None:
                raise measure.Failed(f"the sending of events ended early with {generator.returncode}")
            looks.append(up.look())
            if len(looks) % max(LOOKS // TENTHS, 1) == 0:
                print(", ".join(f"{name} {value or 0:,.0f}" for name, value in looks[-1].items()), file=sys.stderr)
        generator.terminate()
        generator.wait(timeout=WAIT_SECONDS)
        sent = broker.read(TOPIC)["messages"]
        up.stop()
    finally:
        for process in (generator, up.process):
            if process.poll() is None:
                process.kill()
                process.wait()
    return looks, sent


def check(up, sent):
    """That each message that was sent is in the tables once, and the tables are those of one batch run."""
    # What came when `up` was asked to end is for who comes next.
    measure.run(up.command("run", "--quiet"), up.env)
    measure.run(up.command("verify", *MODELS), up.env)
    counted = "select (select count(*) from events) + (select count(*) from events_quarantine)"
    output = measure.run(up.command("query", "--format", "csv", counted), up.env)[2]
    if output.split()[-1] != str(sent):
        raise measure.Failed(f"{sent} messages were sent, the warehouse holds {output.split()[-1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=lambda p: Path(p).resolve(), required=True, help="the tidemill to watch")
    parser.add_argument("--work", type=lambda p: Path(p).resolve(), required=True, help="folder for topics and tables")
    parser.add_argument("--seconds", type=int, default=3_600, help="how long events come: 86400 is a day")
    parser.add_argument("--rate", type=int, default=200, help="events a second")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    folder = args.work / "project"
    shutil.rmtree(args.work, ignore_errors=True)
    shutil.copytree(PROJECT, folder)
    with Broker(args.work / "kafka") as broker:
        flight, console = (f"127.0.0.1:{port}" for port in free_ports(2))
        env = {"BROKERS": broker.address, "TOPIC": TOPIC, "FLIGHT": flight, "CONSOLE": console}
        up = Up(args, folder, env, console)
        looks, sent = soak(args, broker, up)
        check(up, sent)
    program = measure.run([args.binary, "--version"])[2].strip()
    print(f"## {args.seconds:,} seconds at {args.rate:,} events a second\n")
    print(f"{program}, {VERSION}; {measure.machine()}; {sent:,} messages, each counted once; medians of tenths.\n")
    print(table(looks, args.seconds))
    free = ", ".join(name for name, factor, _ in WATCHED if factor is None)
    print(f"\nMeant to grow, and not judged: {free}. Records and files that nothing names any longer are kept for 7 days.")
    grown = list(growing(looks))
    if grown:
        raise measure.Failed("it grows:\n" + "\n".join(grown))
    print("Nothing else grows. `up` ended with 0 when it was asked to, and `verify` found the tables to be those of one batch run.")
    shutil.rmtree(args.work)


if __name__ == "__main__":
    try:
        main()
    except measure.Failed as failure:
        sys.exit(f"soak: {failure}")
