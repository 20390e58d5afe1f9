"""Changes files below a directory of a mount until that stops working, and writes down what it did.

    client.py DIRECTORY LOG SEED SOCKET [OPERATIONS]

The log lies outside the mount: a line with each operation and the time before it, another with the
time when it returned, and with its errno when it failed. Ends, with status 0, at the first operation that fails (the daemon is dead
then, or its region gone), after so many operations, or when its standard input is closed. Status 1
means that an operation went wrong on a filesystem that was well.
"""
import ctypes
import errno
import json
import os
import random
import select
import socket
import sys
import time

from model import BLOCK, EMPTY, FALLOCATE, RENAME_EXCHANGE, RENAME_NOREPLACE, blocks_of, payload, steps

directory, log_path, seed, control = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
most = int(sys.argv[5]) if len(sys.argv) > 5 else sys.maxsize
libc = ctypes.CDLL(None, use_errno=True)

LIMIT = 256 * 1024
FILES = 24
FORSAKEN = 4
# A daemon that is gone, or whose region is.
DEAD = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.EROFS)
WEIGHTS = {
    "create": 8, "replace": 5, "tmpfile": 4, "write": 16, "append": 10, "truncate": 6,
    "allocate": 2, "keep": 2, "punch": 4, "zero": 3, "zero-keep": 2, "copy": 5,
    "rename": 6, "exchange": 2, "link": 4, "symlink": 2, "unlink": 5, "forsake": 2,
    "mkdir": 3, "rmdir": 1, "chmod": 2, "setxattr": 2,
    "fsync": 2, "fdatasync": 2, "fsyncdir": 1, "checkpoint": 0.3, "freeze": 0.1,
}  # fmt: skip


def call(name, *args):
    if getattr(libc, name)(*args) < 0:
        raise OSError(ctypes.get_errno(), name)


class Generator:
    """Operations that can be done in the state as it is."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.names, self.weights = list(WEIGHTS), list(WEIGHTS.values())
        self.seed = seed
        self.payloads = 0
        self.fresh = 0
        self.queue = []

    def next(self, state):
        while not self.queue:
            name = self.random.choices(self.names, self.weights)[0]
            self.queue = getattr(self, name.replace("-", "_"), lambda state: self.on_file(name, state))(state)
        return self.queue.pop(0)

    def pick(self, state, kind):
        found = [path for path, entry in state.tree.items() if entry[0] == kind]
        return self.random.choice(found) if found else None

    def unused(self, state):
        """A name that nothing has: in the root, or in a directory."""
        self.fresh += 1
        parent = self.pick(state, "d") if self.random.random() < 0.5 else None
        return f"n{self.fresh}" if parent is None else f"{parent}/n{self.fresh}"

    def bytes(self, most=LIMIT):
        self.payloads += 1
        longest = self.random.choice([200, 5000, 20_000, 70_000])
        return [min(most, self.random.randint(1, longest)), self.seed * 1_000_003 + self.payloads]

    def offset(self, size):
        kind = self.random.randrange(4)
        if kind == 0:
            return self.random.randrange(LIMIT)
        if kind == 1:
            return self.random.randrange(LIMIT // BLOCK) * BLOCK
        return self.random.randrange(max(1, size))

    def create(self, state):
        if len(state.files) >= FILES:
            return self.unlink(state)
        return [["create", self.unused(state)]]

    def replace(self, state):
        """As an editor saves: a new file, written, made durable or not, takes the name."""
        path, temporary = self.pick(state, "f"), self.unused(state)
        if path is None:
            return self.create(state)
        write = ["write", temporary, 0, *self.bytes()]
        middle = [["fsync", temporary]] if self.random.random() < 0.3 else []
        return [["create", temporary], write, *middle, ["rename", temporary, path, 0]]

    def tmpfile(self, state):
        return self.create(state) if len(state.files) >= FILES else [["tmpfile", self.unused(state), *self.bytes()]]

    def on_file(self, name, state):
        path = self.pick(state, "f")
        if path is None:
            return self.create(state)
        size = len(state.file(path).data)
        if name in FALLOCATE or name == "write":
            offset = self.offset(size)
            length, number = self.bytes(LIMIT - offset)
            return [[name, path, offset, length, number][: 4 if name in FALLOCATE else 5]]
        if name == "append":
            if size >= LIMIT // 2:
                return [["truncate", path, self.random.randrange(size // 2)]]
            return [[name, path, *self.bytes()]]
        if name == "truncate":
            return [[name, path, self.offset(size)]]
        if name == "chmod":
            return [[name, path, self.random.choice([0o600, 0o640, 0o644, 0o755])]]
        if name == "setxattr":
            self.payloads += 1
            return [[name, path, f"value {self.seed} {self.payloads}" * self.random.randint(1, 20)]]
        return [[name, path]]

    def copy(self, state):
        source, target = self.pick(state, "f"), self.pick(state, "f")
        if source is None or state.tree[source] == state.tree[target]:
            return self.create(state)
        size = len(state.file(source).data)
        start = self.random.randrange(max(1, size))
        offset = self.offset(len(state.file(target).data))
        length = min(self.random.randint(1, 70_000), size - start, LIMIT - offset)
        return [["copy", target, source, start, offset, length]] if length > 0 else self.append_to(target)

    def append_to(self, path):
        return [["append", path, *self.bytes(20_000)]]

    def rename(self, state):
        old = self.pick(state, self.random.choice("fffdl"))
        if old is None:
            return self.create(state)
        onto = self.pick(state, "f")
        if state.tree[old][0] == "d" or onto is None or self.random.random() < 0.5:
            fresh = self.unused(state)
            fresh = fresh.rpartition("/")[2] if state.tree[old][0] == "d" else fresh
            return [["rename", old, fresh, RENAME_NOREPLACE]]
        # Of two links to one file, rename does nothing: left out.
        return [["rename", old, onto, 0]] if state.tree[old] != state.tree[onto] else []

    def exchange(self, state):
        one, other = self.pick(state, "f"), self.pick(state, self.random.choice("fl"))
        if one is None or other is None or state.tree[one] == state.tree[other]:
            return []
        return [["rename", one, other, RENAME_EXCHANGE]]

    def link(self, state):
        path = self.pick(state, "f")
        return [] if path is None or len(state.tree) > 3 * FILES else [["link", path, self.unused(state)]]

    def symlink(self, state):
        return [] if len(state.tree) > 3 * FILES else [["symlink", f"to {self.payloads}", self.unused(state)]]

    def unlink(self, state):
        path = self.pick(state, self.random.choice("fffl"))
        return [] if path is None else [["unlink", path]]

    def forsake(self, state):
        """Without a name, but open."""
        path = self.pick(state, "f")
        return [] if path is None else [["forsake", path]]

    def mkdir(self, state):
        directories = [path for path, entry in state.tree.items() if entry[0] == "d"]
        self.fresh += 1
        return self.rmdir(state) if len(directories) >= 4 else [["mkdir", f"d{self.fresh}"]]

    def rmdir(self, state):
        path = self.pick(state, "d")
        if path is None or any(other.startswith(path + "/") for other in state.tree):
            return []
        return [["rmdir", path]]

    def fsyncdir(self, state):
        path = self.pick(state, "d")
        return [["fsyncdir", "." if path is None else path]]

    def checkpoint(self, state):
        return [["checkpoint"]]

    def freeze(self, state):
        return [["freeze"]]


forsaken = []


def opened(path, flags, run):
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        run(fd)
    finally:
        os.close(fd)


def exactly(count, wanted):
    if count != wanted:
        raise ValueError(f"{count} bytes instead of {wanted}")


def write_all(put, data):
    """A write may be short when the daemon dies in it; the rest then says so."""
    done = 0
    while done < len(data):
        done += put(data[done:], done)


def write(path, offset, length, number):
    opened(path, os.O_WRONLY, lambda fd: write_all(lambda rest, done: os.pwrite(fd, rest, offset + done), payload(number, length)))


def append(path, length, number):
    opened(path, os.O_WRONLY | os.O_APPEND, lambda fd: write_all(lambda rest, _done: os.write(fd, rest), payload(number, length)))


def copy(path, source, start, offset, length):
    def onto(fd):
        opened(source, os.O_RDONLY, lambda other: exactly(os.copy_file_range(other, fd, length, start, offset), length))

    opened(path, os.O_WRONLY, onto)


def tmpfile(path, length, number):
    def name(fd):
        write_all(lambda rest, _done: os.write(fd, rest), payload(number, length))
        call("linkat", -100, b"/proc/self/fd/%d" % fd, -100, path.encode(), 0x400)

    opened(os.path.dirname(path) or ".", os.O_TMPFILE | os.O_WRONLY, name)


def forsake(path):
    forsaken.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    os.unlink(path)
    facts = os.fstat(forsaken[-1])
    if facts.st_nlink == 0:
        # A new block: until the unlink is durable, stores in place would be seen after a crash.
        os.pwrite(forsaken[-1], b"nobody's", blocks_of(facts.st_size) * BLOCK)
    if len(forsaken) > FORSAKEN:
        os.close(forsaken.pop(0))


def ask(*methods):
    """Over the control socket; an answer to each before the next."""
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.connect(control)
        answers = daemon.makefile("rb")
        for number, method in enumerate(methods):
            daemon.sendall(json.dumps({"id": number, "method": method, "params": {}}).encode() + b"\n")
            answer = json.loads(answers.readline() or b'{"error": {"errno": %d}}' % errno.ECONNRESET)
            # Another client's freeze may have ended with our thaw.
            if "error" in answer and method != "thaw":
                raise OSError(answer["error"]["errno"], f"{method}: {answer['error'].get('message')}")


def fallocate(path, name, offset, length):
    opened(path, os.O_WRONLY, lambda fd: call("fallocate", fd, FALLOCATE[name], ctypes.c_long(offset), ctypes.c_long(length)))


ACTIONS = {
    "create": lambda path: opened(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, lambda fd: None),
    "tmpfile": tmpfile,
    "write": write,
    "append": append,
    "truncate": os.truncate,
    "copy": copy,
    "rename": lambda old, new, flags: call("renameat2", -100, old.encode(), -100, new.encode(), flags),
    "link": os.link,
    "symlink": os.symlink,
    "unlink": os.unlink,
    "forsake": forsake,
    "mkdir": lambda path: os.mkdir(path, 0o700),
    "rmdir": os.rmdir,
    "chmod": os.chmod,
    "setxattr": lambda path, value: os.setxattr(path, "user.kept", value.encode()),
    "fsync": lambda path: opened(path, os.O_RDONLY, os.fsync),
    "fdatasync": lambda path: opened(path, os.O_RDONLY, os.fdatasync),
    "fsyncdir": lambda path: opened(path, os.O_RDONLY, os.fsync),
    "checkpoint": lambda: ask("checkpoint"),
    "freeze": lambda: ask("freeze", "thaw"),
}


def perform(operation):
    name, *given = operation
    if name in FALLOCATE:
        fallocate(given[0], name, *given[1:])
    else:
        ACTIONS[name](*given)


def main():
    os.chdir(directory)
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    generator, state = Generator(seed), EMPTY
    for number in range(most):
        if number % 16 == 0 and select.select([sys.stdin], [], [], 0)[0]:
            break
        operation = generator.next(state)
        os.write(log, json.dumps([number, time.monotonic_ns(), operation]).encode() + b"\n")
        try:
            perform(operation)
        except (OSError, ValueError) as error:
            why = error.errno if isinstance(error, OSError) else -1
            os.write(log, b"[%d, %d, %d]\n" % (number, time.monotonic_ns(), why))
            if operation[0] == "freeze" and why == errno.EBUSY:
                continue
            if why not in DEAD:
                print(f"{os.path.basename(log_path)}: {operation}: {error}", file=sys.stderr)
            sys.exit(0 if why in DEAD else 1)
        os.write(log, b"[%d, %d]\n" % (number, time.monotonic_ns()))
        state = steps(state, number, operation)[-1]


main()
