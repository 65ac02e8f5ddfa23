"""Aggregates that only grow: rows a second of refreshes by number of groups, what a commit writes against the groups that it touches, and
many groups under a small `state_memory`. Prints Markdown; scripts/bench runs it.

The same refreshes are asked of `tidemill up`, too, which holds the state between them: there a step's seconds are all of it, from the new
file's being found to its commit.

Each refresh is a `tidemill run` of its own that finds one new Parquet file; its seconds are those that the run tells of the model, and of the
whole process. The newest table is compared with one batch run by `verify`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from statistics import median

import measure
from broker import free_ports

GROUPS = [1_000, 100_000, 1_000_000, 5_000_000]
STEP_ROWS = 524_288
WAIT_SECONDS = 120
SQL = "SELECT k, count(*) AS n, sum(v) AS total, max(t) AS latest FROM rows GROUP BY k"


def generate(path, groups, rows, first):
    """Rows of groups in no order, the same for the same arguments."""
    spread = f"(hash(i) % {groups})::BIGINT" if first else f"(hash(i + 7) % {groups})::BIGINT"
    key = f"i % {groups}" if first and rows >= groups else spread
    query = f"SELECT {key} AS k, (hash(i * 3) % 10000)::BIGINT AS v, i AS t FROM range({rows}) r(i)"
    path.parent.mkdir(parents=True, exist_ok=True)
    duck(f"COPY ({query}) TO '{path}.new' (FORMAT parquet)")
    os.rename(f"{path}.new", path)


def duck(sql):
    """What a statement says first, as text; in a process of its own, so that this one stays small."""
    program = "import duckdb, sys; rows = duckdb.sql(sys.argv[1]); print(rows.fetchall()[0][0] if rows else '')"
    return measure.run([sys.executable, "-c", program, sql])[2].strip()


class Shop:
    """A project with one model over a folder of files."""

    def __init__(self, binary, folder, memory=None):
        self.binary, self.folder = binary, folder
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "pipelines").mkdir(parents=True)
        limit = f"state_memory: {memory}\n" if memory else ""
        (folder / "tidemill.yaml").write_text(f"version: 1\nname: groups\nwarehouse: warehouse\n{limit}")
        (folder / "pipelines/groups.yaml").write_text(
            "pipeline: groups\nsources:\n  rows: { connector: files, path: 'rows/*.parquet', format: parquet, settle: 0s }\n"
            f"models:\n  totals:\n    key: [k]\n    sql: |\n      {SQL}\n"
        )

    def run(self):
        """Seconds of the process, those of the model, peak memory in KB, strategy."""
        seconds, memory_kb, output = measure.run([self.binary, "--project", self.folder, "run", "--format", "json"], {})
        told = json.loads(output.splitlines()[-1])
        return seconds, told["seconds"], memory_kb, told["strategy"]

    def steps(self, files):
        """Seconds of the steps of `up` that take in files, one after the other; the first of them reads the state, and isn't told."""
        flight, console = (f"127.0.0.1:{port}" for port in free_ports(2))
        project = self.folder / "tidemill.yaml"
        project.write_text(project.read_text() + f"flight: {{ listen: '{flight}' }}\nconsole: {{ listen: '{console}' }}\n")
        with (self.folder / "up.log").open("wb") as log:
            up = subprocess.Popen([self.binary, "--project", self.folder, "up", "--quiet"], stdout=log, stderr=log)
        seconds = []
        try:
            before = until(console, lambda count, _: count > 0)
            for put in files:
                put()
                after = until(console, lambda count, _, before=before: count > before[0])
                seconds.append(after[1] - before[1])
                before = after
        finally:
            up.terminate()
            up.wait()
        return seconds[1:]

    def verify(self):
        measure.run([self.binary, "--project", self.folder, "verify"], {})

    def files(self):
        """Bytes of the files that the warehouse has, by path."""
        return {path: path.stat().st_size for path in (self.folder / "warehouse").rglob("*") if path.is_file()}


def until(console, is_reached):
    """Number of steps and their seconds together, once that is reached."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://{console}/metrics", timeout=WAIT_SECONDS) as answer:
                lines = [line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if not line.startswith("#")]
            told = {name: float(number) for name, number in lines}
            steps = told["tidemill_step_duration_seconds_count"], told["tidemill_step_duration_seconds_sum"]
            if is_reached(*steps):
                return steps
        except (OSError, KeyError):
            pass
        time.sleep(0.05)
    raise measure.Failed("up took no step")


def grow(args, groups):
    shop = Shop(args.binary, args.work / "groups")
    generate(shop.folder / "rows/0.parquet", groups, max(groups, args.base_rows), True)
    first = shop.run()[0]
    model_seconds, process_seconds, written = [], [], []
    for turn in range(args.runs):
        generate(shop.folder / f"rows/{turn + 1}.parquet", groups, STEP_ROWS, False)
        before = shop.files()
        whole, model, _, strategy = shop.run()
        if strategy != "incremental":
            raise measure.Failed(f"{groups} groups: the refresh was {strategy}")
        process_seconds.append(whole)
        model_seconds.append(model)
        written.append(sum(size for path, size in shop.files().items() if path not in before))
    arrivals = range(args.runs + 1, 2 * args.runs + 2)
    held = shop.steps([lambda at=at: generate(shop.folder / f"rows/{at}.parquet", groups, STEP_ROWS, False) for at in arrivals])
    shop.verify()
    touched = int(duck(f"SELECT count(DISTINCT k) FROM '{shop.folder}/rows/1.parquet'"))
    rate = STEP_ROWS / median(model_seconds)
    return [f"{groups:,}", f"{touched:,}", f"{first:.2f}", f"{median(process_seconds):.2f}", f"{median(model_seconds):.2f}",
            f"{rate / 1e6:.2f} M", f"{median(held):.2f}", f"{STEP_ROWS / median(held) / 1e6:.2f} M",
            f"{median(written) / 2**20:.1f} MB", f"{median(written) / touched:.0f}"]


def capped(args, memory):
    """The first build and a refresh of many groups."""
    shop = Shop(args.binary, args.work / "groups", memory)
    generate(shop.folder / "rows/0.parquet", args.many, args.many, True)
    first, _, first_kb, _ = shop.run()
    generate(shop.folder / "rows/1.parquet", args.many, STEP_ROWS, False)
    refresh, _, refresh_kb, strategy = shop.run()
    shop.verify()
    shown = memory or "default"
    return [shown, f"{first:.1f}", f"{first_kb // 1024} MB", f"{refresh:.1f}", f"{refresh_kb // 1024} MB", strategy]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=lambda text: Path(text).resolve(), required=True)
    parser.add_argument("--work", type=lambda text: Path(text).resolve(), required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--base-rows", type=int, default=5_000_000)
    parser.add_argument("--many", type=int, default=20_000_000, help="groups under a small state_memory; 0: leave that out")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    load = measure.Load()
    load.look()
    print(f"## Aggregates that grow, {STEP_ROWS:,} new rows a refresh\n\n{measure.machine()}; medians of {args.runs}.\n")
    header = ["groups", "touched", "first build s", "refresh s", "model s", "rows/s of the model", "step of `up` s", "rows/s of the step",
              "written", "bytes a touched group"]
    print(measure.table(header, [grow(args, groups) for groups in GROUPS]))
    if args.many:
        print(f"\n### {args.many:,} groups\n")
        header = ["state_memory", "first build s", "peak", "refresh s", "peak", "strategy"]
        print(measure.table(header, [capped(args, memory) for memory in (None, "1GB")]))
    load.look()
    print(f"\nload {load}")
    shutil.rmtree(args.work / "groups", ignore_errors=True)


if __name__ == "__main__":
    main()
