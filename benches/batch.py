"""First build and no-op run of two models over events in Parquet, beside DataFusion, DuckDB and Polars: prints Markdown.

Each measurement is a process of its own; systems take turns, so that a busy moment meets all of them; the figure is the median.
All results must be the same rows. `totals` computes a model and sums it up, so that next to nothing is written; `build` computes
and writes it. scripts/bench runs this.
"""

import argparse
import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from statistics import median

import measure

HERE = Path(__file__).parent
PROJECT = HERE / "batch"
MODELS = {
    "product_sales": ["window_start", "product_id", "sales_date", "units", "revenue"],
    "daily_purchases": ["day", "units", "revenue"],
}
PEERS = ["datafusion", "duckdb", "polars"]
# Tidemill as the model says, and with one thing changed: the overlay, and the models that it makes a difference for.
VARIANTS = {
    "tidemill": ([], list(MODELS)),
    "tidemill, unpartitioned": (["one_folder"], ["product_sales"]),
    "tidemill, rules on the source": (["rules"], list(MODELS)),
}

NOTES = """
Tidemill's time is that of the whole process. It checks the contract of the files, the model's rules and that its key is unique,
syncs files to disk, writes a Delta table (product_sales: a folder a day) and one commit record. The peers' time starts after
imports; they write Parquet without rules, keys, sync or commit, compressed alike. Files are in the page cache. `rules on the source`
is what the shop has: each event is looked at by two rules and kept as the warehouse's own. A no-op run finds nothing to do; the
peers have none and would build again.
"""


class Tidemill:
    def __init__(self, binary, data, overlays):
        self.binary, self.data, self.overlays = binary, data, overlays
        self.noop = []

    def command(self, *arguments):
        overlays = [part for name in self.overlays for part in ("--overlay", PROJECT / "overlays" / f"{name}.yaml")]
        return [self.binary, "--project", PROJECT, *overlays, *arguments]

    def measure(self, model, action, out):
        env = {"SHOP_DATA": str(self.data), "WAREHOUSE": str(out)}
        name = f"{model}_totals" if action == "totals" else model
        command = self.command("run", "--format", "json", "--select", name)
        seconds, memory_kb, output = measure.run(command, env)
        if json.loads(output)["status"] != "ok":
            raise measure.Failed(f"{name} wasn't built: {output}")
        if action == "build":
            again, _, output = measure.run(command, env)
            if json.loads(output)["status"] != "nothing":
                raise measure.Failed(f"{name} was built again: {output}")
            self.noop.append(again)
        return seconds, memory_kb

    def result(self, model, out):
        return out / model


class Peer:
    noop = None

    def __init__(self, engine, data):
        self.engine, self.data = engine, data

    def measure(self, model, action, out):
        out.mkdir(parents=True)
        _, _, output = measure.run([sys.executable, HERE / "peers.py", self.engine, model, action, self.data, out])
        measured = json.loads(output)
        return measured["seconds"], measured["memory_kb"]

    def result(self, _, out):
        return out


def systems(model, binary, data):
    ours = {name: Tidemill(binary, data, overlays) for name, (overlays, models) in VARIANTS.items() if model in models}
    return ours | {f"{name} {version(name)}": Peer(name, data) for name in PEERS}


def compare(model, runs, work, binary, data, load):
    """The table of one model."""
    contestants = systems(model, binary, data)
    times = {name: {"totals": [], "build": []} for name in contestants}
    memory = {name: [] for name in contestants}
    digests = {}
    for turn in range(runs):
        for name, system in contestants.items():
            for action in ("totals", "build"):
                out = work / "out"
                shutil.rmtree(out, ignore_errors=True)
                load.look()
                seconds, memory_kb = system.measure(model, action, out)
                times[name][action].append(seconds)
                print(f"  {model} {name} {action} {turn + 1}: {seconds:.2f} s, {memory_kb // 1024} MB", file=sys.stderr)
                if action == "build":
                    memory[name].append(memory_kb)
                    digests[name] = digest(system.result(model, out), MODELS[model])
    same = len({(d["rows"], d["digest"]) for d in digests.values()}) == 1
    if not same:
        raise measure.Failed(f"{model} differs: {json.dumps(digests, indent=2)}")
    rows = [row(name, times[name], memory[name], contestants[name].noop, times) for name in contestants]
    header = ["", "totals s", "build s", "build, best to worst", "of the best peer", "no-op run s", "peak memory MB"]
    counted = next(iter(digests.values()))
    return f"### {model}: {counted['rows']:,} rows, the same in all (sha256 {counted['digest']}…)\n\n" + measure.table(header, rows)


def row(name, times, memory, noop, all_times):
    best_peer = min(median(t["build"]) for other, t in all_times.items() if not other.startswith("tidemill"))
    build = times["build"]
    return [
        name,
        f"{median(times['totals']):.2f}",
        f"{median(build):.2f}",
        f"{min(build):.2f} to {max(build):.2f}",
        f"{median(build) / best_peer:.1f}×",
        f"{median(noop):.2f}" if noop else "",
        f"{median(memory) / 1024:.0f}",
    ]


def digest(folder, columns):
    return json.loads(measure.run([sys.executable, HERE / "digest.py", folder, *columns])[2])


def generate(binary, data, events, days, seed):
    made = data / "made.json"
    wanted = {"events": events, "days": days, "seed": seed}
    if made.exists() and json.loads(made.read_text()) == wanted:
        return
    shutil.rmtree(data, ignore_errors=True)
    print(f"generating {events:,} events in {data}", file=sys.stderr)
    arguments = ["--events", events, "--days", days, "--seed", seed, "--orders", 1, "--format", "parquet"]
    measure.run([binary, "generate", data, *map(str, arguments)])
    made.write_text(json.dumps(wanted))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, required=True, help="the release build of tidemill")
    parser.add_argument("--work", type=lambda p: Path(p).resolve(), required=True, help="folder for data and tables")
    parser.add_argument("--events", type=int, default=2_000_000, help="100000000 is the full figure, about 1 GB")
    parser.add_argument("--days", type=int, default=151)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--keep", action="store_true", help="keep the generated data for the next time")
    args = parser.parse_args()
    data, load = args.work / "data", measure.Load()
    generate(args.binary, data, args.events, args.days, seed=1)
    files = list((data / "events").glob("*.parquet"))
    size = sum(measure.warm(file) for file in files)
    tables = [compare(model, args.runs, args.work, args.binary, data, load) for model in args.models]
    program = measure.run([args.binary, "--version"])[2].strip()
    print(f"## {args.events:,} events in {len(files)} Parquet files, {size / 1e6:,.0f} MB\n")
    print(f"{program}, {measure.machine()}; load {load}; median of {args.runs}.\n")
    print("\n\n".join(tables))
    print(NOTES)
    shutil.rmtree(args.work / "out", ignore_errors=True)
    if not args.keep:
        shutil.rmtree(data)


if __name__ == "__main__":
    try:
        main()
    except measure.Failed as failure:
        sys.exit(f"bench: {failure}")
