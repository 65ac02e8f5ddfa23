"""Runs a command and says what it took; describes the machine. Knows no engine."""

import os
import platform
import subprocess
import time
from pathlib import Path
from statistics import median


class Failed(Exception):
    """A command that should have worked."""


def run(command, env=None):
    """Wall seconds, peak memory in kB and standard output of a command that must succeed.

    A child's peak is never below that of the process that started it, so that this one must stay small.
    """
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | (env or {}), text=True)
    try:
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        # It mustn't go on when this is told to end.
        process.kill()
        raise
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise Failed(f"exit code {process.returncode}: {' '.join(map(str, command))}")
    kb = usage.ru_maxrss if platform.system() == "Linux" else usage.ru_maxrss // 1024
    return seconds, kb, output


def warm(file):
    """Reads a file into the page cache; its size."""
    size = 0
    with open(file, "rb") as opened:
        while part := opened.read(1 << 20):
            size += len(part)
    return size


class Load:
    """How busy the machine was, others included: a minute's mean of runnable threads, at each look."""

    def __init__(self):
        self.seen = []

    def look(self):
        self.seen.append(os.getloadavg()[0])

    def __str__(self):
        return f"{min(self.seen):.1f} to {max(self.seen):.1f}, median {median(self.seen):.1f}"


def machine():
    """Cores, memory and kernel, in a line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    names = [platform.processor() or platform.machine()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        names = models[:1] or names
    return f"{os.cpu_count()} cores ({names[0]}), {memory:.0f} GiB, {platform.system()} {platform.release()}"


def table(header, rows):
    """A Markdown table; all but the first column are figures."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
