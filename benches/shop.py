"""What a user of the demo waits for: validate, plan, the first run of all tables, and a run with nothing to do. Prints Markdown.

There is no peer. scripts/bench runs this.
"""

import argparse
import shutil
import sys
from pathlib import Path
from statistics import median

import measure

SHOP = Path(__file__).parent.parent
COMMANDS = {
    "validate": ["validate"],
    "plan, before the first run": ["plan"],
    "first run": ["run", "--quiet"],
    "no-op run": ["run", "--quiet"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, required=True, help="the release build of tidemill")
    parser.add_argument("--work", type=lambda p: Path(p).resolve(), required=True, help="folder for data and tables")
    parser.add_argument("--orders", type=int, default=5_000)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    folder, load = args.work / "shop", measure.Load()
    env = {"SHOP_DATA": str(folder / "data"), "WAREHOUSE": str(folder / "warehouse")}
    shutil.rmtree(folder, ignore_errors=True)
    sizes = ["--orders", args.orders, "--events", args.events, "--malformed", 0.0005]
    measure.run([args.binary, "generate", folder / "data", *map(str, sizes)])
    taken = {name: [] for name in COMMANDS}
    for _ in range(args.runs):
        shutil.rmtree(folder / "warehouse", ignore_errors=True)
        for name, command in COMMANDS.items():
            load.look()
            # One instant for all: a later one would be something to do for a model that reads the clock.
            clock = ["--now", "2018-07-01T00:00:00Z"] if command[0] == "run" else []
            seconds, memory_kb, _ = measure.run([args.binary, "--project", SHOP, *command, *clock], env)
            taken[name].append((seconds, memory_kb))
    print(f"## The demo's shop: {args.orders:,} orders and {args.events:,} events in CSV\n")
    print(f"{measure.machine()}; load {load}; median of {args.runs}.\n")
    print(measure.table(["", "s", "peak memory MB"], [row(name, runs) for name, runs in taken.items()]))
    print()
    shutil.rmtree(folder)


def row(name, runs):
    return [name, f"{median(s for s, _ in runs):.2f}", f"{median(kb for _, kb in runs) / 1024:.0f}"]


if __name__ == "__main__":
    try:
        main()
    except measure.Failed as failure:
        sys.exit(f"bench: {failure}")
