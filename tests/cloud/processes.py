"""The processes of one cloud: started with a mark, found again and stopped by it.

Every process inherits an environment variable that names the cloud's state folder. It finds all of
them, children and grandchildren in whatever session, from any later process and after a crash, and
no process of anybody else: process ids alone may have been given away again meanwhile.
"""
import os
import pathlib
import signal
import subprocess
import threading
import time

MARK = "TEST_CLOUD_STATE"
TERM_SECONDS = 6
TAIL_LINES = 15


class ProcessFailure(Exception):
    """A process ended that should not have; the message shows the end of its output."""


class Processes:
    """Starts, watches and stops the processes of the cloud in ``state``."""

    def __init__(self, state, logs, environment):
        self._mark = b"%s=%s" % (MARK.encode(), os.fsencode(state))
        self._state = state
        self._logs = logs
        self._environment = dict(environment, **{MARK: str(state)})
        self._started = {}
        self._lock = threading.Lock()
        self._stopping = False

    def start(self, name, command, environment=None, keep_open=()):
        """Start a program that goes on running; its output goes to ``<logs>/<name>.out``."""
        process = self._spawn(name, command, environment, keep_open)
        self._started[name] = process

    def run(self, name, command, environment=None):
        """Run a program to its end.

        :raises ProcessFailure: it failed
        """
        code = self._spawn(name, command, environment).wait()
        if code:
            raise ProcessFailure(self._describe(name, code))

    def _spawn(self, name, command, environment=None, keep_open=()):
        with open(self._logs / (name + ".out"), "ab") as output, self._lock:
            if self._stopping:
                raise ProcessFailure("%s was not started: the cloud is stopping." % name)
            return subprocess.Popen(
                [str(part) for part in command], env=dict(self._environment, **environment or {}),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self._state,
                start_new_session=True, pass_fds=keep_open)

    def check(self):
        """Raise if a started program is no longer there.

        :raises ProcessFailure: with the end of its output and its log
        """
        for name, process in list(self._started.items()):
            if process.poll() is not None:
                raise ProcessFailure(self._describe(name, process.returncode))

    def wait_until(self, what, ready, seconds=120, interval=0.1):
        """Call ``ready`` until it says yes, as long as every process lives.

        :raises ProcessFailure: a process ended, or the time is over
        """
        deadline = time.monotonic() + seconds
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise ProcessFailure("%s: not within %d s. Logs: %s" % (what, seconds, self._logs))
            time.sleep(interval)

    def stop_one(self, name):
        """Stop one program by the session that it was started in."""
        process = self._started.pop(name)
        _end([process.pid], lambda: _in_session(process.pid))
        process.wait()

    def signal_one(self, name, number):
        """Send one program a signal."""
        self._started[name].send_signal(number)

    def names(self):
        """The programs that run and were started by this object."""
        return list(self._started)

    def stop(self):
        """Stop every process that bears the mark, for good: nothing can be started after it."""
        with self._lock:
            self._stopping = True
        _end([], self.running)
        for process in self._started.values():
            process.wait()
        self._started.clear()

    def running(self):
        """The ids of all processes that bear the mark, whoever started them."""
        found = []
        for pid in _all_pids():
            try:
                environment = pathlib.Path("/proc/%d/environ" % pid).read_bytes().split(b"\0")
            except OSError:  # gone, or another user's
                continue
            if self._mark in environment and pid != os.getpid():
                found.append(pid)
        return found

    def _describe(self, name, code):
        how = "was killed by signal %d" % -code if code < 0 else "ended with %d" % code
        parts = ["%s %s." % (name, how)]
        for path in (self._logs / (name + ".out"), self._logs / (name + ".log")):
            if path.exists() and path.stat().st_size:
                lines = path.read_text(errors="replace").splitlines()[-TAIL_LINES:]
                parts.append("-- the end of %s\n%s" % (path, "\n".join(lines)))
        return "\n".join(parts)


def _end(first, find):
    """SIGTERM to ``first`` and what ``find`` finds, SIGKILL to what is left after a while."""
    deadline = time.monotonic() + TERM_SECONDS
    asked = set()
    pids = {*first, *find()}
    while pids:
        late = time.monotonic() > deadline
        for pid in pids if late else pids - asked:
            try:
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
            except ProcessLookupError:
                pass
        asked |= pids
        time.sleep(0.1)
        pids = set(find())


def _all_pids():
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _in_session(session):
    found = []
    for pid in _all_pids():
        try:
            # After the name in parentheses: state, parent, process group, session.
            fields = pathlib.Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(pid)
    return found


def memory(pids):
    """Megabytes of memory of processes, shared pages counted once."""
    total = 0
    for pid in pids:
        try:
            lines = pathlib.Path("/proc/%d/smaps_rollup" % pid).read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total // 1024


def command_of(pid):
    """The command line of a process, or nothing if it is gone."""
    try:
        parts = pathlib.Path("/proc/%d/cmdline" % pid).read_bytes().split(b"\0")
    except OSError:
        return ""
    return " ".join(os.fsdecode(part) for part in parts if part)
