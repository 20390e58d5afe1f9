"""What the operations of client.py do to a directory: states, one for every operation.

A state is never changed: an operation gives new ones that share what stays the same, so that many
can be kept. Paths are relative to the client's directory.

Each block of a file has a generation: 0 while it is a hole or preallocated, and a new number when
bytes first land in it. INVARIANT: as long as a block has the same generation in two states, bytes
that are stored in it between them are stored in place.
"""
import hashlib
import random

BLOCK = 4096
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
FALLOCATE = {"allocate": 0, "keep": 1, "punch": 3, "zero": 0x10, "zero-keep": 0x11}
SYNCS = ("fsync", "fdatasync", "fsyncdir", "checkpoint", "freeze")


def payload(seed, length):
    """The bytes of a write: never those of another one."""
    return random.Random(seed).randbytes(length)


class File:
    __slots__ = ("data", "generations", "mode", "xattr")

    def __init__(self, data=b"", generations=(), mode=0o600, xattr=None):
        self.data = data
        self.generations = generations
        self.mode = mode
        self.xattr = xattr

    def having(self, data, generations):
        return File(bytes(data), tuple(generations), self.mode, self.xattr)


class State:
    """tree: path -> ("d",), ("l", target) or ("f", number of the file)."""

    __slots__ = ("tree", "files")

    def __init__(self, tree, files):
        self.tree = tree
        self.files = files

    def file(self, path):
        return self.files[self.tree[path][1]]

    def putting(self, number, file):
        return State(self.tree, {**self.files, number: file})

    def linking(self, entries):
        """With these entries changed (None: gone), and without files that have no name left."""
        tree = {**self.tree, **entries}
        tree = {path: entry for path, entry in tree.items() if entry is not None}
        named = {entry[1] for entry in tree.values() if entry[0] == "f"}
        return State(tree, {number: file for number, file in self.files.items() if number in named})


EMPTY = State({}, {})


def blocks_of(size):
    return -(-size // BLOCK)


def resized(file, size):
    generations = list(file.generations[: blocks_of(size)])
    generations += [0] * (blocks_of(size) - len(generations))
    return file.having(file.data[:size].ljust(size, b"\0"), generations)


def written(file, offset, data, number):
    """The number is the operation's: generations are unique, and the same in every replay."""
    end = offset + len(data)
    file = resized(file, end) if end > len(file.data) else file
    generations = list(file.generations)
    for block in range(offset // BLOCK, blocks_of(end)):
        generations[block] = generations[block] or number + 1
    return file.having(file.data[:offset] + data + file.data[end:], generations)


def writes(file, offset, data, number):
    """The kernel may send what comes after a partial first page in a request of its own."""
    head = -offset % BLOCK
    first = [written(file, offset, data[:head], number)] if 0 < head < len(data) else []
    return [*first, written(file, offset, data, number)]


def punched(file, offset, length):
    size = len(file.data)
    end = min(offset + length, size)
    if end <= offset:
        return file
    generations = list(file.generations)
    last = blocks_of(end) if offset + length >= size else end // BLOCK
    for block in range(blocks_of(offset), last):
        generations[block] = 0
    return file.having(file.data[:offset] + bytes(end - offset) + file.data[end:], generations)


def allocated(file, name, offset, length):
    """The states of a fallocate, one after the other."""
    end = offset + length
    if name == "punch":
        return [punched(file, offset, length)]
    steps = [punched(file, offset, length)] if name.startswith("zero") else []
    last = steps[-1] if steps else file
    if name in ("allocate", "zero") and end > len(last.data):
        last = resized(last, end)
    return [*steps, last]


def renamed(state, old, new, flags):
    """Whatever is below a directory goes with it."""

    def moved(source, target):
        below = source + "/"
        return {
            target + path[len(source) :]: entry
            for path, entry in state.tree.items()
            if path == source or path.startswith(below)
        }

    gone = {path: None for path in [*moved(old, old), *moved(new, new)]}
    back = moved(new, old) if flags & RENAME_EXCHANGE else {}
    return state.linking({**gone, **moved(old, new), **back})


def steps(state, number, operation):
    """The states that the operation goes through: the last one is there when it has returned."""
    name, *given = operation
    if name in SYNCS:
        return [state]
    if name == "mkdir":
        return [state.linking({given[0]: ("d",)})]
    if name == "symlink":
        return [state.linking({given[1]: ("l", given[0])})]
    if name in ("unlink", "rmdir", "forsake"):
        return [state.linking({given[0]: None})]
    if name == "link":
        return [state.linking({given[1]: state.tree[given[0]]})]
    if name == "rename":
        return [renamed(state, *given)]
    if name == "create":
        return [state.putting(number, File()).linking({given[0]: ("f", number)})]
    if name == "tmpfile":
        path, length, seed = given
        file = written(File(), 0, payload(seed, length), number)
        return [state.putting(number, file).linking({path: ("f", number)})]
    key = state.tree[given[0]][1]
    return [state.putting(key, file) for file in changed(state, number, name, *given)]


def changed(state, number, name, path, *given):
    """The same for operations that change one file."""
    file = state.file(path)
    if name in ("write", "append"):
        offset, length, seed = given if name == "write" else (len(file.data), *given)
        return writes(file, offset, payload(seed, length), number)
    if name == "truncate":
        return [resized(file, given[0])]
    if name == "copy":
        source, start, offset, length = given
        return [written(file, offset, state.file(source).data[start : start + length], number)]
    if name == "chmod":
        return [File(file.data, file.generations, given[0], file.xattr)]
    if name == "setxattr":
        return [File(file.data, file.generations, file.mode, given[0])]
    return allocated(file, name, *given)


def digest(data):
    return hashlib.blake2b(data, digest_size=16).hexdigest()
