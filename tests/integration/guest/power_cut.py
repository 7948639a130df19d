"""What is left of a disk when the power fails, at any moment of its life.

A recorder lies beneath the back-end (tests/powercut): it has every write, and every flush that
came to an end, in order. A disk with a volatile cache must keep what was written before the last
flush; of what came after it, it may keep all, nothing or any part. The guest says aloud what it
was told is durable, so for each moment it is known what must be found.
"""

import bisect
import os
import random
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import backend
import kit

HEAD_BYTES = 24
WRITE, ZERO, FLUSH = 1, 2, 3
WRITERS = "abcd"


class Recorder:
    """Context manager: `disk` is the file to serve; everything done to it is in the log."""

    def __init__(self, image: Path, workdir: Path, bin_dir: Path):
        self.directory = workdir / "recorded"
        self.directory.mkdir()
        self.log = workdir / "record"
        self.disk = self.directory / "disk"
        self.process = subprocess.Popen(
            kit.DIES_WITH_PARENT + [bin_dir / "bulkhead-recording-disk", image, self.log,
                                    self.directory])

    def __enter__(self):
        if not backend.wait_until(lambda: self.disk.exists() or self.process.poll() is not None,
                                  60) or self.process.poll() is not None:
            raise kit.KitError("the recording disk did not start: it needs /dev/fuse and root")
        return self

    def __exit__(self, *_):
        kit.run(["umount", "--lazy", self.directory])
        self.process.wait(timeout=60)

    def position(self) -> int:
        return self.log.stat().st_size


@dataclass(frozen=True)
class Record:
    kind: int
    offset: int
    length: int
    data: int  # Where its data are in the log.
    end: int


@dataclass
class Claims:
    """What the guest was told is durable, and how much the log had when it said so."""

    recorder: Recorder
    made: list

    def hear(self, line: str) -> None:
        words = line.split()
        if len(words) == 3 and words[0] in ("synced", "state"):
            self.made.append((self.recorder.position(), words[0], words[1], int(words[2])))

    def at(self, position: int) -> dict:
        """For each writer, how many files and which state must be found."""
        found = {writer: [0, -1] for writer in WRITERS}
        for when, what, writer, number in self.made:
            if when <= position:
                place = 0 if what == "synced" else 1
                found[writer][place] = max(found[writer][place], number + 1 - place)
        return found


class History:
    def __init__(self, log: Path):
        self.log = log
        self.records = []
        with open(log, "rb") as source:
            size = os.fstat(source.fileno()).st_size
            at = 0
            while at < size:
                head = source.read(HEAD_BYTES)
                kind, offset, length = (int.from_bytes(head[i:i + 8], "little")
                                        for i in (0, 8, 16))
                data = at + HEAD_BYTES
                at = data + (length if kind == WRITE else 0)
                source.seek(at)
                self.records.append(Record(kind, offset, length, data, at))
        self.ends = [record.end for record in self.records]

    def count_until(self, position: int) -> int:
        """How many records are in the log's first `position` bytes."""
        return bisect.bisect_right(self.ends, position)

    def position(self, count: int) -> int:
        """The inverse."""
        return self.ends[count - 1] if count else 0

    def last_flush(self, count: int) -> int:
        """How many of the first `count` records a disk must have kept."""
        while count > 0 and self.records[count - 1].kind != FLUSH:
            count -= 1
        return count

    def flushes(self) -> int:
        return sum(record.kind == FLUSH for record in self.records)

    def apply(self, records: list, image: Path) -> None:
        with open(self.log, "rb") as source, open(image, "r+b") as disk:
            for record in records:
                if record.kind == FLUSH:
                    continue
                disk.seek(record.offset)
                if record.kind == ZERO:
                    disk.write(bytes(record.length))
                else:
                    source.seek(record.data)
                    disk.write(source.read(record.length))


def choose_cuts(history: History, claims: Claims, count: int, dice: random.Random) -> list:
    """Numbers of records: the moments right after promises are the hardest, any other may be
    hard for the file system."""
    promised = [history.count_until(claim[0]) for claim in claims.made]
    first = min(promised)
    wanted = dice.sample(promised, min(count * 2 // 3, len(promised)))
    while len(wanted) < count:
        wanted.append(dice.randrange(first, len(history.records) + 1))
    return sorted(wanted)


def make_disk(image: Path, fresh: Path, history: History, cut: int, variant: int,
              dice: random.Random) -> Path:
    """The disk after the power failed with `cut` records in the log."""
    kept = history.last_flush(cut)
    records = history.records[:kept]
    rest = history.records[kept:cut]
    if variant % 3 == 1:
        records = records + rest
    elif variant % 3 == 2:
        records = records + [record for record in rest if dice.random() < 0.5]
    shutil.copyfile(fresh, image)
    history.apply(records, image)
    return image


def expected_lines(promises: list) -> str:
    """For the guest that checks: disk, writer, files, state."""
    return "\n".join(f"vd{chr(ord('a') + disk)} {writer} {files} {state}"
                     for disk, promised in enumerate(promises)
                     for writer, (files, state) in promised.items())
