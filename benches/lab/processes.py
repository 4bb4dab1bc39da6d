"""Processes of a benchmark: started, pinned, watched and ended by it, and by nobody else."""
import collections
import ctypes
import os
import signal
import socket
import subprocess
import time

HOST = "127.0.0.1"
TICK = os.sysconf("SC_CLK_TCK")
LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1
STARTED = []  # what we started and have not seen end


def prepare(core):
    """What a child does before exec: die with us, and stay on its core."""
    def before_exec():
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if core is not None:
            os.sched_setaffinity(0, {core})
    return before_exec


def start(argv, core, log, env=None):
    """Starts a process whose output goes to the end of the file `log`."""
    with open(log, "ab") as out:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                   env={**os.environ, **(env or {})}, preexec_fn=prepare(core))
    STARTED.append(process)
    return process


def run(argv, core, limit):
    """Runs a process to its end, or to the limit in seconds; its output."""
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               preexec_fn=prepare(core))
    STARTED.append(process)
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
    STARTED.remove(process)
    return output


def parent(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return int(stat.read().rsplit(")", 1)[1].split()[1])
    except (OSError, ValueError, IndexError):
        return None


def tree(pid):
    """The process and all that descend from it."""
    children = collections.defaultdict(list)
    for name in os.listdir("/proc"):
        if name.isdigit():
            children[parent(int(name))].append(int(name))
    found, left = [], [pid]
    while left:
        found.append(left.pop())
        left += children.get(found[-1], [])
    return found


def stop(process):
    """Ends a process of ours, and workers that its master left behind."""
    if process not in STARTED:
        return
    below = tree(process.pid)[1:] if process.poll() is None else []
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(4)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(4)
    for pid in below:
        if parent(pid) in (1, process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
    STARTED.remove(process)


def stop_all():
    for process in list(STARTED):
        stop(process)


def cpu_seconds(pids):
    """User and system time of these processes so far."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                columns = stat.read().rsplit(")", 1)[1].split()
            total += int(columns[11]) + int(columns[12])
        except OSError:
            pass
    return total / TICK


def busy_seconds():
    """CPU time that the whole machine has spent so far, stolen time included."""
    with open("/proc/stat") as stat:
        spent = [int(value) for value in stat.readline().split()[1:9]]
    idle, waiting = spent[3], spent[4]
    return (sum(spent) - idle - waiting) / TICK


def pss_kib(pids):
    """Memory of these processes, shared pages counted in shares."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as rollup:
                total += sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
        except OSError:
            pass
    return total


def wait_port(port, process, limit=20):
    """True once the process listens; false where it ended, or after the limit in seconds."""
    end = time.monotonic() + limit
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex((HOST, port)) == 0:
                return True
        time.sleep(0.05)
    return False
