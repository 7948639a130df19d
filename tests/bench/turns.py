"""What the comparisons share: programs that run in turns on a machine that others use, too.

A round runs every program once (A B C, A B C, ...), so that what disturbs the machine disturbs all
of them; a round in which something else took CPU time is thrown away and run again.
"""
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

BACK_END_CPU, CLIENT_CPU = 0, 1
DISTURBED = 0.06   # Of both CPUs together: time that neither side of the round used.
ATTEMPTS = 3       # For each wanted round.


class Bar:
    """A number of ours, alone or over that of another program, beside what it must reach."""

    def __init__(self, key, of, least=None, most=None):
        self.key, self.of, self.least, self.most = key, of, least, most

    def text(self):
        return f'>= {self.least}' if self.least is not None else f'<= {self.most}'

    def holds(self, value):
        return value >= self.least if self.least is not None else value <= self.most


# --- the machine ----------------------------------------------------------------------------------

def busy_ticks():
    """Ticks in which any CPU did anything, and ticks stolen by the hypervisor."""
    fields = [int(x) for x in open('/proc/stat').readline().split()[1:]]
    user, nice, system, _, _, irq, softirq, steal = fields[:8]
    return user + nice + system + irq + softirq, steal


def tree(pid):
    pids = [pid]
    for parent in pids:
        try:
            for task in os.listdir(f'/proc/{parent}/task'):
                pids += map(int, open(f'/proc/{parent}/task/{task}/children').read().split())
        except OSError:
            pass
    return pids


def ticks_of(pids):
    total = 0
    for pid in pids:
        try:
            fields = open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()
            total += sum(map(int, fields[11:15]))  # Its own, and its children's that are gone.
        except OSError:
            pass
    return total


class Watch:
    """How much of the machine, in this time, went to somebody else than to what we measure."""

    def __init__(self, pids=()):
        self.pids = pids
        self.start, self.steal = busy_ticks()
        self.ours = ticks_of(pids)
        self.children = os.times()
        self.begin = time.monotonic()

    def disturbed(self):
        busy, steal = busy_ticks()
        seconds = time.monotonic() - self.begin
        hz = os.sysconf('SC_CLK_TCK')
        times = os.times()
        client = ((times.children_user + times.children_system) -
                  (self.children.children_user + self.children.children_system)) * hz
        other = (busy - self.start) - (ticks_of(self.pids) - self.ours) - client
        return (max(other, 0) + (steal - self.steal)) / (seconds * hz * os.cpu_count())


def run_ns(pid):
    total = 0
    for task in os.listdir(f'/proc/{pid}/task'):
        total += int(open(f'/proc/{pid}/task/{task}/schedstat').read().split()[0])
    return total


# --- the programs ---------------------------------------------------------------------------------

class Server:
    """A back-end that serves the file on a socket, on its CPU."""

    def __init__(self, command, path):
        self.path = path
        self.log = tempfile.TemporaryFile('w+')
        if os.path.exists(path):
            os.unlink(path)
        self.process = subprocess.Popen(['taskset', '-c', str(BACK_END_CPU)] + command,
                                        stdout=self.log, stderr=self.log)
        wait_listening(path, self.process)

    def pid(self):
        return self.process.pid

    def text(self):
        self.log.seek(0)
        return self.log.read()

    def wait_alone(self):
        """Until sessions and workers have ended: their time is their parent's to tell then."""
        deadline = time.monotonic() + 2
        while len(tree(self.pid())) > 1 and time.monotonic() < deadline:
            time.sleep(0.001)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        # The kernel tears an io_uring down a little after its process, and the disk's lock with it.
        time.sleep(0.05)


def wait_listening(path, process):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if os.path.exists(path):
            return
        if process.poll() is not None:
            sys.exit(f'a back-end did not start: {" ".join(process.args)}')
        time.sleep(0.0002)
    sys.exit('a back-end did not listen in time')


# --- rounds ---------------------------------------------------------------------------------------

def take_turns(turns, options):
    """Lists of results for each program, undisturbed rounds only where there were enough; and what
    a reader has to know of them."""
    kept, thrown = [], []
    while len(kept) < options.rounds and len(kept) + len(thrown) < ATTEMPTS * options.rounds:
        results = {name: run() for name, run in turns.items()}
        worst = max(result['disturbed'] for result in results.values())
        (thrown if worst > options.disturbed else kept).append((worst, results))
    note = ''
    if len(kept) < options.rounds:
        missing = options.rounds - len(kept)
        note += f', NOT QUIET: {missing} rounds with up to ' \
                f'{max(worst for worst, _ in sorted(thrown, key=lambda t: t[0])[:missing]):.0%} ' \
                'of the machine taken by others'
        kept += sorted(thrown, key=lambda item: item[0])[:missing]
    note += f', {len(thrown)} rounds thrown away'
    rounds = {name: [results[name] for _, results in kept] for name in turns}
    return rounds, note


def spread(values):
    middle = statistics.median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def print_table(rounds, keys, bars):
    """Medians and half spreads, then each bar. False if one is missed."""
    print('    ' + ' ' * 10 + ''.join(f'{key:>20}' for key in keys))
    for name, results in rounds.items():
        cells = []
        for key in keys:
            values = [result[key] for result in results if key in result]
            cells.append(f'{statistics.median(values):.4g} +-{spread(values) / 2:.0%}'
                         if values else '-')
        print(f'    {name:10}' + ''.join(f'{cell:>20}' for cell in cells))
    ok = True
    for bar in bars:
        ours = statistics.median(result[bar.key] for result in rounds['bulkhead'])
        value, against = ours, ''
        if bar.of:
            value = ours / statistics.median(result[bar.key] for result in rounds[bar.of])
            against = f' / {bar.of}'
        holds = bar.holds(value)
        ok = ok and holds
        print(f'    {bar.key + against:28} {value:8.3f}   bar {bar.text():10} '
              f'{"reached" if holds else "MISSED"}')
    return ok
