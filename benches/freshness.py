"""How old the newest row is that `tidemill up` shows, as events come, and how long it takes from its being killed to new rows."""

import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from statistics import median

import adbc_driver_flightsql.dbapi as flight

import measure
from broker import VERSION, free_ports

TOPIC = "live"
# Models that are kept, and the newest purchase that each holds.
NEWEST = {"filter": "SELECT max(event_time) FROM filter", "tumble": "SELECT max(latest) FROM tumble"}
COUNTED = "SELECT (SELECT count(*) FROM filter), (SELECT sum(units) FROM tumble)"
# How often freshness is looked at: rarely enough that asking isn't most of what the machine does.
EVERY_SECONDS = 0.1
# Before it is: until the first commits' work is done.
SETTLED_SECONDS = 10
WAIT_SECONDS = 300
# Days of the shop's that a day of sending takes in.
SHOP_DAYS = 100
# Pause between two tries of something that isn't there yet.
RETRY_SECONDS = 0.01

NOTES = """
Age: a second process's clock less the time of the newest purchase that the table shows it over Flight SQL (ADBC), as the answer
arrives; events get their time as they are sent, and a purchase is among them each {gap:.1f} ms. It asks each {every:.0f} ms, and an
answer that takes longer counts for each question that it held up. From kill to fresh: SIGKILL, the same command at once, until both
tables show a purchase that happened after the kill. At the end they held each of the {purchases:,} purchases of the topic once, and
`verify` found them to be those of one batch run.
"""


class Up:
    """`tidemill up`, which can be killed and started again."""

    def __init__(self, tidemill, address, log):
        self.tidemill, self.address, self.log, self.process = tidemill, address, log, None

    def start(self):
        command = self.tidemill.command("up", "--listen", self.address)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | self.tidemill.env)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(timeout=WAIT_SECONDS) not in (0, 143):
            raise measure.Failed(f"up ended with {self.process.returncode}: {self.log.read_text()[-2000:]}")

    def memory_peak_kb(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

    def ask(self, sql):
        """The one row of an answer, by a connection of its own. Fails where nobody answers yet."""
        with connect(self.address) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()

    def wait_until(self, sql, fits):
        """Until an answer fits; what the answer was."""
        until = time.monotonic() + WAIT_SECONDS
        while True:
            if self.process.poll() is not None or time.monotonic() > until:
                raise measure.Failed(f"up doesn't get there: {self.log.read_text()[-2000:]}")
            try:
                answer = self.ask(sql)
                if fits(*answer):
                    return answer
            except flight.Error:
                pass
            time.sleep(RETRY_SECONDS)


class Live:
    """The section on freshness."""

    def __init__(self, args, broker, tidemill):
        self.args, self.broker, self.load = args, broker, measure.Load()
        self.env = {"BROKERS": broker.address, "TOPIC": TOPIC, "PRODUCTS": str(args.work / "products.json")}
        self.tidemill = tidemill(args.binary, args.work / "tidemill", self.env)

    def section(self):
        args = self.args
        self.broker.make(TOPIC)
        self.tidemill.project(*NEWEST)
        log = args.work / "up.log"
        log.unlink(missing_ok=True)
        up = Up(self.tidemill, f"127.0.0.1:{free_ports(1)[0]}", log)
        up.start()
        generator = None
        try:
            generator, began = self.generate(), time.monotonic()
            up.wait_until(NEWEST["tumble"], lambda newest: newest is not None)
            time.sleep(SETTLED_SECONDS)
            self.load.look()
            ages = watch(up, args.seconds)
            self.load.look()
            memory_kb = up.memory_peak_kb()
            kills = [self.kill(up, turn) for turn in range(args.runs)]
            self.load.look()
            end(generator)
            seconds = time.monotonic() - began
            sent = self.broker.read(TOPIC)
            check(up, sent["purchases"])
            up.stop()
            self.tidemill.verify(*NEWEST)
        finally:
            for process in (generator, up.process):
                if process is not None and process.poll() is None:
                    process.kill()
                    process.wait()
        self.broker.drop(TOPIC)
        self.show(ages, memory_kb, kills, sent, seconds)

    def generate(self):
        args = self.args
        # More than can be sent meanwhile: it is ended. So many visits a day that purchases come from the first seconds on.
        arguments = ["--topic", TOPIC, "--rate", args.rate, "--events", args.rate * 86_400, "--days", SHOP_DAYS, "--seed", 2]
        command = [args.binary, "generate", "--kafka", self.broker.address, *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def kill(self, up, turn):
        """Seconds from a kill until a later purchase is visible, in the table that shows it last."""
        up.wait_until(NEWEST["tumble"], lambda newest: (now() - newest).total_seconds() < 1)
        killed, clock = now(), time.monotonic()
        up.kill()
        up.start()
        for newest in NEWEST.values():
            up.wait_until(newest, lambda newest: newest is not None and newest > killed)
        seconds = time.monotonic() - clock
        print(f"  from kill to fresh {turn + 1}: {seconds:.2f} s", file=sys.stderr)
        return seconds

    def show(self, ages, memory_kb, kills, sent, seconds):
        args = self.args
        program = measure.run([args.binary, "--version"])[2].strip()
        print(f"## Freshness at {sent['messages'] / seconds:,.0f} events a second\n")
        peak = f"peak memory of `up` {memory_kb // 1024} MB"
        print(f"{program}, {VERSION}; {measure.machine()}; load {self.load}; {args.seconds} s; {peak}.\n")
        header = ["age of the newest purchase, s", "answers", "p50", "p99", "p99.9", "max"]
        print(measure.table(header, [[name, f"{len(seen):,}", *quantiles(seen)] for name, seen in ages.items()]))
        print()
        shown = ["from kill to fresh", f"{median(kills):.2f}", f"{min(kills):.2f} to {max(kills):.2f}"]
        print(measure.table(["", f"s, median of {args.runs}", "best to worst"], [shown]))
        purchases = sent["purchases"]
        print(NOTES.format(every=EVERY_SECONDS * 1000, purchases=purchases, gap=seconds / purchases * 1000))


def check(up, purchases):
    """That each purchase that was sent is visible once."""
    if purchases == 0:
        raise measure.Failed("no purchase was sent")
    counted = up.wait_until(COUNTED, lambda rows, units: min(rows, units) >= purchases)
    if counted != (purchases, purchases):
        raise measure.Failed(f"{purchases} purchases were sent, tables hold {counted}")


def watch(up, seconds):
    """Ages that were seen, by table."""
    ages = {name: [] for name in NEWEST}
    with connect(up.address) as connection, connection.cursor() as cursor:
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            for name, newest in NEWEST.items():
                cursor.execute(newest)
                age = (now() - cursor.fetchone()[0]).total_seconds()
                # Those that should have been asked while this one was open got the same answer.
                due = int((time.monotonic() - began) / EVERY_SECONDS) + 1
                ages[name] += [age] * max(due - len(ages[name]), 1)
            time.sleep(max(began + len(ages["filter"]) * EVERY_SECONDS - time.monotonic(), 0))
    return ages


def connect(address):
    return flight.connect(f"grpc://{address}", autocommit=True)


def quantiles(ages):
    ages = sorted(ages)
    at = [ages[min(int(len(ages) * share), len(ages) - 1)] for share in (0.5, 0.99, 0.999)]
    return [f"{age:.3f}" for age in [*at, ages[-1]]]


def now():
    return datetime.now(timezone.utc)


def end(process):
    if process.poll() is not None:
        raise measure.Failed("the sending of events ended early")
    process.terminate()
    process.wait(timeout=WAIT_SECONDS)
