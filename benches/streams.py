"""Tidemill on streams: the speed of working off a topic, beside Flink and beside reading alone, and how fresh tables are. Prints Markdown.

Each measurement is a process of its own; systems take turns, so that a busy moment meets all of them; the figure is the median.
Flink's rows must be Tidemill's. The broker runs on this machine, too, and starts and ends with this. scripts/bench-streams runs this.
"""

import argparse
import csv
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from statistics import median

import measure
from broker import PARTITIONS, VERSION, Broker
from freshness import Live

HERE = Path(__file__).parent
STREAMS = HERE / "streams"
FLINK = HERE.parent / "target/venv-streams/bin/python"
TOPIC = "backlog"
EMPTY = "empty"


class Query:
    """What one model says besides its SQL: its key, if its rows have one, and its columns in an order that sorts them."""

    def __init__(self, columns, key=None):
        self.columns, self.key = columns, key


QUERIES = {
    "filter": Query(["user_session", "event_time", "product_id", "user_id", "price"]),
    "tumble": Query(["window_start", "product_id", "units", "revenue", "latest"], "window_start, product_id"),
    "tumble_many": Query(["window_start", "user_session", "events", "worth"], "window_start, user_session"),
    "sessions": Query(["user_id", "session_start", "session_end", "events", "worth"], "user_id, session_start"),
    "enrich": Query(["user_id", "event_time", "product_id", "event_type", "price", "category", "weight"]),
    "top": Query(["category", "rank", "product_id", "revenue"], "category, rank"),
}

ABOUT = """
filter: purchases. tumble: per product and minute. tumble_many: all events per `user_session` and hour. sessions: per user, 30 minutes
apart. enrich: all events with a table of products. top: ten products of each category by revenue, of all time.
The SQL is in benches/streams.
"""

NOTES = """
Tidemill's time is that of the whole process: it starts from nothing, checks each message against the contract, keeps all rows as Parquet,
syncs them to disk, and writes a Delta table and one commit record. Flink's time starts when its JVM is up and ends with its job, the
start of the job's cluster included: of that time, `Flink's start` is what the same job takes over an empty topic, so that with few
events it is most of it. It reads the columns that the query names, keeps no rows, and writes JSON to a topic, exactly once, with
checkpoints each 5 s to disk. Its state is on the heap; `top` runs with mini-batches. The limit is librdkafka and arrow's JSON decoder
over all columns, rows thrown away, in one thread, so that two can pass it. All three and the broker share the machine's cores.

Where the two mean different things, this topic has nothing to tell them apart: Flink drops events that are behind the watermark, Tidemill
corrects its results by them, and none is; Flink writes a window once, when the watermark has closed it, and the end of the topic closes
all; it goes on with a session over a gap of exactly the given one, so that it is given a millisecond less. Flink's `enrich` is its
regular join, which keeps both sides, as Tidemill's does: a product that changes would change earlier rows.
"""


class Tidemill:
    def __init__(self, binary, folder, env):
        self.binary, self.folder, self.env = binary, folder, env

    def project(self, *models):
        """A project with these models over the topic."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("pipelines", "sql"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "tidemill.yaml").write_text("version: 1\nname: streams\nwarehouse: warehouse\n")
        declared = (STREAMS / "events.yaml").read_text() + "models:\n"
        for name in models:
            key = QUERIES[name].key
            declared += f"  {name}: {{ key: [{key}] }}\n" if key else f"  {name}: {{}}\n"
            shutil.copy(STREAMS / f"tidemill/{name}.sql", self.folder / f"sql/{name}.sql")
        (self.folder / "pipelines/events.yaml").write_text(declared)

    def command(self, *arguments):
        return [self.binary, "--project", self.folder, *arguments]

    def run(self, name):
        """Seconds and peak memory of building the model from nothing."""
        self.project(name)
        seconds, memory_kb, output = measure.run(self.command("run", "--format", "json"), self.env)
        if json.loads(output)["status"] != "ok":
            raise measure.Failed(f"{name} wasn't built: {output}")
        return seconds, memory_kb

    def verify(self, *models):
        """Whether the tables are those of one batch run over the rows that were kept."""
        measure.run(self.command("verify", *models), self.env)

    def table(self, name):
        return self.folder / "warehouse" / name


class Flink:
    def __init__(self, folder, env, broker):
        self.folder, self.env, self.broker = folder, env, broker

    def run(self, name, topic, out):
        """Seconds and peak memory of a job over a topic whose rows go to another."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        query = STREAMS / f"flink/{name}.sql"
        self.broker.make(out)
        places = [self.broker.address, topic, self.env["PRODUCTS"], query, out, self.folder]
        output = measure.run([FLINK, HERE / "flink.py", *places])[2]
        measured = json.loads(output.splitlines()[-1])
        return measured["seconds"], measured["memory_kb"]

    def rows(self, name, out):
        """The rows of the topic, in a folder; of those with a key, each one's last."""
        rows = self.folder / "rows"
        rows.mkdir()
        self.broker.read(out, rows / "rows.json", *(["keyed"] if name == "top" else []))
        return rows


def digest(folder, columns):
    return json.loads(measure.run([sys.executable, HERE / "digest.py", folder, *columns])[2])


def compare(name, args, tidemill, flink, load):
    """The row of one query."""
    query, events = QUERIES[name], args.events
    seconds = {"tidemill": [], "flink": [], "start": [], "limit": []}
    memory, digests = {"tidemill": [], "flink": []}, {}

    def took(system, turn, measured, peak_kb=0):
        seconds[system].append(measured)
        if peak_kb:
            memory[system].append(peak_kb)
        print(f"  {name} {system} {turn + 1}: {measured:.2f} s, {peak_kb // 1024} MB", file=sys.stderr)

    for turn in range(args.runs):
        load.look()
        if args.limit:
            took("limit", turn, limit(args, tidemill.env))
        took("tidemill", turn, *tidemill.run(name))
        digests[f"tidemill {turn + 1}"] = digest(tidemill.table(name), query.columns)
        if flink is None:
            continue
        load.look()
        out = f"{name}-{turn}"
        took("start", turn, flink.run(name, EMPTY, f"{name}-{turn}-empty")[0])
        took("flink", turn, *flink.run(name, TOPIC, out))
        digests[f"flink {turn + 1}"] = digest(flink.rows(name, out), query.columns)
        flink.broker.drop(out)
    if flink is None:
        tidemill.verify(name)
    counted = digests["tidemill 1"]
    if counted["rows"] == 0 or any(other != counted for other in digests.values()):
        raise measure.Failed(f"{name} differs: {json.dumps(digests, indent=2)}")
    return [name, f"{counted['rows']:,}", *figures(events, seconds, memory)]


def limit(args, env):
    """Seconds of reading the topic and decoding it."""
    read = json.loads(measure.run([args.limit, env["BROKERS"], env["TOPIC"]])[2])
    if (read["messages"], read["rows"]) != (args.events, args.events):
        raise measure.Failed(f"the limit read {read} of {args.events} events")
    return read["seconds"]


def figures(events, seconds, memory):
    ours = median(seconds["tidemill"])
    shown = [rate(events, ours), f"{rate(events, max(seconds['tidemill']))} to {rate(events, min(seconds['tidemill']))}"]
    for other in ("flink", "limit"):
        theirs = median(seconds[other]) if seconds[other] else None
        shown += [rate(events, theirs), f"{theirs / ours:.2f}×"] if theirs else ["", ""]
    shown.append(f"{median(seconds['start']):.1f} of {median(seconds['flink']):.1f}" if seconds["flink"] else "")
    return shown + [f"{median(memory[system]) / 1024:,.0f}" if memory[system] else "" for system in ("tidemill", "flink")]


def rate(events, seconds):
    return f"{events / seconds:,.0f}"


HEADER = ["", "rows", "Tidemill events/s", "worst to best", "Flink events/s", "Tidemill / Flink", "limit events/s"]
HEADER += ["Tidemill / limit", "Flink's start, s", "Tidemill MB", "Flink MB"]


def make_products(args, file):
    """The catalog of the shop whose events they are, each product under a number as the web shop gives them."""
    folder = args.work / "shop"
    shutil.rmtree(folder, ignore_errors=True)
    # As many products as a shop of so many events has, without those events.
    orders = 10_000 + args.events // 40
    measure.run([args.binary, "generate", folder, "--orders", str(orders), "--events", "1", "--seed", "1"])
    with (folder / "products/products.csv").open(newline="") as made, file.open("w") as out:
        for index, product in enumerate(csv.DictReader(made)):
            weight = product["product_weight_g"]
            row = {
                "number": 1_000_000 + 17 * index,
                "product_category_name": product["product_category_name"] or None,
                "product_weight_g": int(weight) if weight else None,
            }
            out.write(json.dumps(row) + "\n")
    shutil.rmtree(folder)


def backlog(args, broker, load):
    """The section on working off a topic."""
    env = {"BROKERS": broker.address, "TOPIC": TOPIC, "PRODUCTS": str(args.work / "products.json")}
    make_products(args, Path(env["PRODUCTS"]))
    broker.make(TOPIC)
    broker.make(EMPTY)
    print(f"sending {args.events:,} events", file=sys.stderr)
    sent = ["--kafka", broker.address, "--topic", TOPIC, "--events", args.events, "--rate", 0, "--seed", 1]
    # In the past, over days: events that happen when they are sent would all be in one minute and one session.
    sent += ["--start", "2018-01-01", "--days", args.days]
    measure.run([args.binary, "generate", *map(str, sent)])
    size = broker.read(TOPIC)["bytes"] / args.events
    tidemill = Tidemill(args.binary, args.work / "tidemill", env)
    flink = None if args.skip_flink else Flink(args.work / "flink", env, broker)
    rows = [compare(name, args, tidemill, flink, load) for name in args.only if name in QUERIES]
    broker.drop(TOPIC)
    broker.drop(EMPTY)
    spread = "one day" if args.days == 1 else f"{args.days} days"
    print(f"## Working off {args.events:,} events of {size:.0f} bytes, of {spread}, in {PARTITIONS} partitions\n")
    same = "Tables are those of `verify`." if flink is None else "Flink's rows are the same (compared by sha256)."
    print(f"{versions(args)}; {measure.machine()}; load {load}; median of {args.runs}. {same}\n")
    print(measure.table(HEADER, rows))
    print(ABOUT + ("" if flink is None else NOTES))


def versions(args):
    shown = [measure.run([args.binary, "--version"])[2].strip(), VERSION]
    if not args.skip_flink:
        known = "from importlib.metadata import version; print(version('apache-flink'))"
        shown.append("Flink " + subprocess.check_output([FLINK, "-c", known], text=True).strip())
    return ", ".join(shown)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=lambda p: Path(p).resolve(), required=True, help="the release build of tidemill")
    parser.add_argument("--limit", type=lambda p: Path(p).resolve(), help="the release build of the example kafka_limit")
    parser.add_argument("--work", type=lambda p: Path(p).resolve(), required=True, help="folder for topics and tables")
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--days", type=int, default=1, help="days over which the events of the backlog are spread")
    parser.add_argument("--runs", type=int, default=3)
    measured = [*QUERIES, "fresh"]
    parser.add_argument("--only", nargs="+", choices=measured, default=measured, metavar="QUERY", help=", ".join(measured))
    parser.add_argument("--skip-flink", action="store_true")
    parser.add_argument("--seconds", type=int, default=60, help="how long freshness is watched; 600 is the full figure")
    parser.add_argument("--rate", type=int, default=20_000, help="events a second meanwhile")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    try:
        with Broker(args.work / "kafka") as broker:
            if any(name in QUERIES for name in args.only):
                backlog(args, broker, measure.Load())
            if "fresh" in args.only:
                Live(args, broker, Tidemill).section()
    finally:
        for name in ("tidemill", "flink", "shop"):
            shutil.rmtree(args.work / name, ignore_errors=True)


if __name__ == "__main__":
    # What was started ends with this, also where this is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except measure.Failed as failure:
        sys.exit(f"bench: {failure}")
