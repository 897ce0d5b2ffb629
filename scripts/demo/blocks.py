"""Writes numbered blocks through an NBD export and notes those acknowledged; checks or fetches.

    blocks.py write SOCKET FIRST COUNT NOTES WRITES
    blocks.py check SOCKET FIRST COUNT NOTES
    blocks.py fetch SOCKET FIRST COUNT FILE

FIRST and COUNT name the blocks of 4 KiB that are used. What a block holds follows from its number
and its generation, that is how often it was written. NOTES gets one line for each acknowledged
write, `NUMBER GENERATION`; NOTES.pending those whose answer never came: they may be on the disk or
not. A second run goes on where the first one ended. WRITES 0: until SIGTERM. `fetch` copies the
blocks to a file.
Prints one JSON object a line: progress, at last the result.
"""

import errno
import hashlib
import json
import random
import signal
import sys
import time

import nbd

BLOCK = 4096
IN_FLIGHT = 16
CHUNK = 256  # blocks in one read


def content(number, generation):
    return hashlib.shake_128(b"block %d generation %d" % (number, generation)).digest(BLOCK)


def read_notes(path):
    noted = {}
    lines = 0
    try:
        with open(path, encoding="ascii") as file:
            for line in file:
                number, generation = map(int, line.split())
                noted[number] = max(generation, noted.get(number, 0))
                lines += 1
    except FileNotFoundError:
        pass
    return noted, lines


def say(**words):
    print(json.dumps(words), flush=True)


class Writer:
    def __init__(self, handle, first, count, notes):
        self.handle = handle
        self.first = first
        self.count = count
        self.notes = open(notes, "a", encoding="ascii")
        self.pending = open(notes + ".pending", "a", encoding="ascii")
        self.newest, _ = read_notes(notes)
        for number, generation in read_notes(notes + ".pending")[0].items():
            self.newest[number] = max(generation, self.newest.get(number, 0))
        self.flying = {}  # block number: (generation, cookie); so no block is there twice
        self.acknowledged = 0
        self.since = time.time()
        self.first_answer = None
        self.last_answer = None

    def submit(self):
        while True:
            number = self.first + random.randrange(self.count)
            if number not in self.flying:
                break
        generation = self.newest.get(number, 0) + 1
        buffer = nbd.Buffer.from_bytearray(bytearray(content(number, generation)))
        self.newest[number] = generation
        cookie = self.handle.aio_pwrite(buffer, number * BLOCK)
        self.flying[number] = (generation, cookie)

    def harvest(self):
        """Notes what was acknowledged. Whether a write has failed, or the connection."""
        failed = False
        for number, (generation, cookie) in list(self.flying.items()):
            try:
                if not self.handle.aio_command_completed(cookie):
                    continue
            except nbd.Error:
                failed = True
                continue
            del self.flying[number]
            self.last_answer = time.time()
            self.first_answer = self.first_answer or self.last_answer
            self.notes.write("%d %d\n" % (number, generation))
            self.acknowledged += 1
        self.notes.flush()
        return failed

    def run(self, writes):
        """Returns "done", or why it ended before that."""
        stop = []
        signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
        submitted = 0
        told = 0.0
        while True:
            try:
                more = not stop and (writes == 0 or submitted < writes)
                while more and len(self.flying) < IN_FLIGHT:
                    self.submit()
                    submitted += 1
                    more = writes == 0 or submitted < writes
                if not self.flying:
                    self.handle.flush()
                    return "done"
                self.handle.poll(100)
            except nbd.Error as error:
                if error.errnum == errno.EINTR:
                    continue
                self.harvest()
                return error.string
            if self.harvest():
                return "a write was refused"
            if time.time() - told > 0.1:
                told = time.time()
                say(acknowledged=self.acknowledged)


def write(handle, first, count, notes, writes):
    writer = Writer(handle, first, count, notes)
    ended = writer.run(int(writes))
    for number, (generation, _) in writer.flying.items():
        writer.pending.write("%d %d\n" % (number, generation))
    writer.pending.close()
    writer.notes.close()
    say(
        acknowledged=writer.acknowledged,
        ended=ended,
        unanswered=len(writer.flying),
        firstAnswer=writer.first_answer or 0,
        lastAnswer=writer.last_answer or 0,
        seconds=time.time() - writer.since,
    )


def check(handle, first, count, notes):
    noted, lines = read_notes(notes)
    # An unanswered write counts only if no acknowledged one came after it.
    pending, _ = read_notes(notes + ".pending")
    bad = []
    untouched = 0
    for start in range(first, first + count, CHUNK):
        blocks = min(CHUNK, first + count - start)
        data = handle.pread(blocks * BLOCK, start * BLOCK)
        for number in range(start, start + blocks):
            found = data[(number - start) * BLOCK : (number - start + 1) * BLOCK]
            generation = noted.get(number, 0)
            wanted = content(number, generation) if generation > 0 else bytes(BLOCK)
            if found == wanted:
                untouched += generation == 0
                continue
            newer = pending.get(number, 0)
            if newer <= generation or found != content(number, newer):
                bad.append(number)
    say(writes=lines, blocks=len(noted), untouched=untouched, bad=len(bad), worst=bad[:5])


def fetch(handle, first, count, path):
    with open(path, "wb") as file:
        for start in range(0, count, CHUNK):
            blocks = min(CHUNK, count - start)
            data = handle.pread(blocks * BLOCK, (first + start) * BLOCK)
            if data.count(0) < len(data):  # what is zero stays a hole
                file.seek(start * BLOCK)
                file.write(data)
        file.truncate(count * BLOCK)


def main():
    work, socket, first, count, notes, *rest = sys.argv[1:]
    handle = nbd.NBD()
    handle.connect_unix(socket)
    work = {"write": write, "check": check, "fetch": fetch}[work]
    work(handle, int(first), int(count), notes, *rest)


main()
