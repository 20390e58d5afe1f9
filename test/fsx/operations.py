"""What can be done to files, and what it must do to their bytes.

An operation is a tuple (name, file, ...): plain numbers, so that a list of them can be replayed. It
means something for every state of the files, so that a list stays valid when some are left out.
"""
import random

BLOCK = 4096

# Name -> how often.
WEIGHTS = {
    "write": 12, "append": 3, "read": 10,
    "direct-write": 3, "direct-read": 3,
    "map-write": 10, "map-read": 8, "map-beyond": 3, "unmap": 2,
    "truncate": 6, "allocate": 3, "keep": 3, "punch": 5, "zero": 3, "zero-keep": 3,
    "copy": 5, "seek": 3, "reopen": 2, "sync": 2, "drop": 3, "replace": 1,
}  # fmt: skip

FALLOCATE_MODES = {"allocate": 0, "keep": 1, "punch": 3, "zero": 0x10, "zero-keep": 0x11}
CLEARING = ("punch", "zero", "zero-keep")
GROWING = ("allocate", "zero")


def payload(seed, length):
    """The bytes a write of this number writes: never those of another one."""
    return random.Random(seed).randbytes(length)


def copy_count(model, file, offset, to, onto, length):
    """How many bytes the copy moves: not past the end, and ranges of one file stay apart."""
    count = max(0, min(length, len(model[file]) - offset))
    return min(count, abs(offset - onto)) if file == to else count


def grow(data, size):
    if size > len(data):
        data.extend(bytes(size - len(data)))


def put(data, offset, more):
    grow(data, offset + len(more))
    data[offset : offset + len(more)] = more


def apply(model, operation):
    """Does the operation to the model: a list of one bytearray for each file."""
    name, file, *arguments = operation
    data = model[file]
    if name in ("write", "direct-write"):
        offset, length, seed = arguments
        put(data, offset, payload(seed, length))
    elif name == "append":
        length, seed = arguments
        data += payload(seed, length)
    elif name == "map-write":
        offset, length, seed = arguments
        length = max(0, min(length, len(data) - offset))
        data[offset : offset + length] = payload(seed, length)
    elif name == "truncate":
        grow(data, arguments[0])
        del data[arguments[0] :]
    elif name in FALLOCATE_MODES:
        offset, length = arguments
        if name in GROWING:
            grow(data, offset + length)
        if name in CLEARING:
            end = min(offset + length, len(data))
            data[offset:end] = bytes(max(0, end - offset))
    elif name == "copy":
        offset, to, onto, length = arguments
        count = copy_count(model, file, offset, to, onto, length)
        if count > 0:
            put(model[to], onto, bytes(data[offset : offset + count]))
    elif name == "replace":
        del data[:]


class Generator:
    """The operations of a seed. It looks at nothing but the model's sizes."""

    def __init__(self, seed, limit, without):
        self.random = random.Random(seed)
        self.limit = limit
        names = [name for name in WEIGHTS if name not in without]
        self.names = random.Random(0).sample(
            [name for name in names for _ in range(WEIGHTS[name])],
            sum(WEIGHTS[name] for name in names),
        )
        self.number = 0

    def offset(self, size):
        """Anywhere, on a block, or where things go wrong: about the end and the start."""
        kind = self.random.randrange(8)
        if kind < 3:
            return self.random.randrange(self.limit)
        if kind < 5:
            return self.random.randrange(self.limit // BLOCK) * BLOCK
        if kind == 5:
            return max(0, min(self.limit - 1, size + self.random.randint(-BLOCK, BLOCK)))
        return self.random.randrange(max(1, min(size, self.limit)))

    def length(self, offset):
        most = self.limit - offset
        kind = self.random.randrange(4)
        if kind == 0:
            wanted = self.random.randint(1, 16) * BLOCK
        else:
            wanted = self.random.randint(1, (100, 5000, 70_000)[kind - 1])
        return min(most, wanted)

    def next(self, model):
        self.number += 1
        name = self.random.choice(self.names)
        file = self.random.randrange(len(model))
        size = len(model[file])
        offset = self.offset(size)
        length = self.length(offset)
        if name in ("write", "map-write"):
            return (name, file, offset, length, self.number)
        if name == "append":
            if size + length > self.limit:
                return ("truncate", file, self.random.randrange(self.limit // 2))
            return (name, file, length, self.number)
        if name in ("direct-write", "direct-read"):
            at = offset // BLOCK * BLOCK
            blocks = min(self.random.randint(1, 16), self.limit // BLOCK - at // BLOCK)
            return (name, file, at, blocks * BLOCK, self.number)[: 5 if name[7] == "w" else 4]
        if name in ("read", "map-read") or name in FALLOCATE_MODES:
            return (name, file, offset, length)
        if name == "copy":
            to = self.random.randrange(len(model))
            onto = self.offset(len(model[to]))
            return (name, file, offset, to, onto, min(length, self.limit - onto))
        if name == "map-beyond":
            return (name, file, self.number)
        if name in ("truncate", "seek"):
            return (name, file, offset)
        return (name, file)
