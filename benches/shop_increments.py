"""Refreshing the shop's models after a day of a hundred is new, or has other values, against computing anew.

The project is this repository's, over CSV. One run builds all models over 99 days; the last one comes as further files, and the second run
maintains them; `run --full-refresh` is what computing anew costs, and `verify` must be clean. With --changed all days are there from the start,
and one in the middle comes again with other prices, states and scores. Seconds of a model are those that the run tells, from taking its
rows to its files; those of the whole process are in the last row. scripts/bench --shop-increments runs this.
"""

import argparse
import csv
import json
import os
import shutil
import sys
from pathlib import Path
from statistics import median

import measure

SHOP = Path(__file__).parent.parent
DAYS = ["events", "orders", "items", "payments", "reviews"]
LAST, MIDDLE = "2018-04-10.csv", "2018-02-20.csv"
# The month after the shop's last, so that previous months have rows; the same for all runs.
NOW = ["--now", "2018-05-01T12:00:00Z"]
CHANGES = {
    "price": lambda price: f"{float(price) * 2:.2f}",
    "payment_value": lambda value: f"{float(value) * 2:.2f}",
    "review_score": lambda score: str(6 - int(score)),
    "order_status": lambda status: "canceled" if status == "delivered" else status,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=lambda p: Path(p).resolve(), required=True, help="the release build of tidemill")
    parser.add_argument("--work", type=lambda p: Path(p).resolve(), required=True, help="folder for data and tables")
    parser.add_argument("--orders", type=int, default=1_500_000)
    parser.add_argument("--events", type=int, default=6_000_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--changed", action="store_true", help="a day whose rows change instead of a new one")
    args = parser.parse_args()
    folder, load = args.work / "shop-increments", measure.Load()
    shutil.rmtree(folder, ignore_errors=True)
    sizes = ["--orders", args.orders, "--events", args.events, "--days", 100]
    measure.run([args.binary, "generate", folder / "whole", *map(str, sizes)])
    arriving = set_apart(folder, args.changed)
    taken = {}
    for _ in range(args.turns):
        for old in ("data", "warehouse"):
            shutil.rmtree(folder / old, ignore_errors=True)
        shutil.copytree(folder / "whole", folder / "data", copy_function=os.link)
        env = {"SHOP_DATA": str(folder / "data"), "WAREHOUSE": str(folder / "warehouse")}
        load.look()
        for step, arguments in {"first": [], "refresh": [], "anew": ["--full-refresh"]}.items():
            if step == "refresh":
                arrive(arriving, folder / "data")
            seconds, _, out = measure.run([args.binary, "-p", SHOP, "run", *NOW, *arguments, "--format", "json"], env)
            for told in map(json.loads, out.splitlines()):
                note(taken, told["model"], step, told["seconds"], told["strategy"])
            note(taken, "whole process", step, seconds, "")
            if step == "refresh":
                measure.run([args.binary, "-p", SHOP, "verify"], env)
    print(f"## The shop: {args.orders:,} orders and {args.events:,} events in CSV, a day of a hundred {'changed' if args.changed else 'new'}\n")
    print(f"{measure.machine()}; load {load}; medians of {args.turns}.\n")
    print(measure.table(["", "first build s", "refresh s", "anew s", "refresh / anew", "strategy"], [row(*entry) for entry in taken.items()]))
    shutil.rmtree(folder)


def note(taken, model, step, seconds, strategy):
    taken.setdefault(model, {}).setdefault(step, []).append((seconds, strategy))


def row(model, steps):
    first, refresh, anew = (median(seconds for seconds, _ in steps[step]) for step in ("first", "refresh", "anew"))
    return [model, f"{first:.2f}", f"{refresh:.2f}", f"{anew:.2f}", f"{refresh / anew:.0%}", steps["refresh"][0][1]]


def set_apart(folder, is_changed):
    """Takes what is to arrive out of the data, or makes it; the files and where in the data they belong."""
    whole, apart = folder / "whole", folder / "apart"
    arriving = []
    for table in DAYS:
        name = MIDDLE if is_changed else LAST
        new = apart / table / name
        new.parent.mkdir(parents=True)
        if is_changed:
            change(whole / table / name, new)
        else:
            (whole / table / name).rename(new)
        arriving.append((new, f"{table}/{name}"))
    if not is_changed:
        arriving.append((customers_apart(whole / "customers", apart), "customers/new.csv"))
    return arriving


def change(old, new):
    with open(old, newline="") as source, open(new, "w", newline="") as target:
        rows = csv.DictReader(source)
        out = csv.DictWriter(target, rows.fieldnames, lineterminator="\n")
        out.writeheader()
        for line in rows:
            out.writerow({name: CHANGES[name](value) if value and name in CHANGES else value for name, value in line.items()})


def customers_apart(customers, apart):
    """The customers of the last day's orders, in a file of their own."""
    with open(apart / "orders" / LAST, newline="") as orders:
        late = {line["customer_id"] for line in csv.DictReader(orders)}
    (file,) = customers.iterdir()
    new, rest = apart / "customers.csv", customers / "rest.csv"
    with open(file) as source, open(new, "w") as later, open(rest, "w") as sooner:
        header = next(source)
        later.write(header)
        sooner.write(header)
        for line in source:
            (later if line.split(",", 1)[0].strip('"') in late else sooner).write(line)
    file.unlink()
    return new


def arrive(arriving, data):
    for file, place in arriving:
        staged = data / f"{place}.next"
        os.link(file, staged)
        staged.rename(data / place)


if __name__ == "__main__":
    try:
        main()
    except measure.Failed as failure:
        sys.exit(f"bench: {failure}")
