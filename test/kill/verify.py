"""Compares a mount with what the clients' logs promise; prints one line of JSON.

    verify.py MOUNT PROMISE LOG… [--writeback] [--kept MANIFEST] [--manifest NEW]

The log NAME.log is of the directory NAME. PROMISE is what must be there:

    all       every operation that returned (the daemon was killed, the host lives on)
    synced    everything before the last fsync, checkpoint or freeze that returned, of anything; and
              of all clients together what is there is the state at one moment (power failure)

With --writeback bytes and sizes are promised by the fsync of their own file only. --kept names a
manifest that an earlier call wrote with --manifest: what is in it must be there unchanged.
"""
import argparse
import errno
import json
import math
import os
import stat

from model import BLOCK, EMPTY, SYNCS, File, digest, steps

WORD = 8
TOLD = 4


class Candidate:
    """A state that may be found, and between which two moments it was the state."""

    def __init__(self, state, position, since):
        self.state = state
        self.position = position
        self.since = since
        self.until = math.inf


class Log:
    def __init__(self, path):
        self.name = os.path.basename(path).removesuffix(".log")
        self.operations, self.begins, self.ends, self.errors = [], [], [], []
        with open(path) as lines:
            for line in lines:
                number, moment, *more = json.loads(line)
                if more and isinstance(more[0], list):
                    self.operations.append(more[0])
                    self.begins.append(moment)
                    self.ends.append(math.inf)
                    self.errors.append(None)
                elif more:
                    self.errors[number] = more[0]
                else:
                    self.ends[number] = moment

    def returned(self):
        return sum(end < math.inf for end in self.ends)

    def tail(self):
        """The last operations, with begin and end in milliseconds before the end of the log."""
        now = max(self.begins)
        return [
            [*operation, round((begin - now) / 1e6), round((end - now) / 1e6) if end < math.inf else error]
            for operation, begin, end, error in zip(self.operations, self.begins, self.ends, self.errors)
        ][-TOLD:]

    def last_sync(self):
        """When the last one began that returned."""
        begun = [b for o, b, e in zip(self.operations, self.begins, self.ends) if o[0] in SYNCS and e < math.inf]
        return begun[-1] if begun else 0

    def floor(self, moment):
        """How many operations had returned by then. The log is in order."""
        return sum(end <= moment for end in self.ends)

    def candidates(self, floor):
        """From the state after `floor` operations on, and of each file when it was last synced."""
        state, found, synced = EMPTY, [Candidate(EMPTY, 0, 0)], {}
        for number, operation in enumerate(self.operations):
            if self.errors[number] == errno.EBUSY:
                continue
            if operation[0] in ("fsync", "fdatasync") and self.ends[number] < math.inf:
                synced[state.tree[operation[1]][1]] = number
            for state in steps(state, number, operation):
                found[-1].until = self.ends[number]
                found.append(Candidate(state, number + 1, self.begins[number]))
        # The last state of the operation before the floor, not what it went through.
        first = max((i for i, c in enumerate(found) if c.position <= floor), default=0)
        return found, first, synced


class Found:
    """A directory as it is."""

    def __init__(self, root):
        self.tree, self.data, self.facts = {}, {}, {}
        self.links = {}
        self.walk(root, "")

    def walk(self, root, below):
        with os.scandir(os.path.join(root, below)) as entries:
            for entry in entries:
                path = f"{below}/{entry.name}" if below else entry.name
                full = os.path.join(root, path)
                if entry.is_symlink():
                    self.tree[path] = ("l", os.readlink(full))
                elif entry.is_dir(follow_symlinks=False):
                    self.tree[path] = ("d",)
                    self.walk(root, path)
                else:
                    self.take(full, path)

    def take(self, full, path):
        facts = os.stat(full)
        self.tree[path] = ("f", facts.st_ino)
        self.links[facts.st_ino] = facts.st_nlink
        if facts.st_ino in self.data:
            return
        with open(full, "rb") as file:
            self.data[facts.st_ino] = file.read()
        if len(self.data[facts.st_ino]) != facts.st_size:
            raise ValueError(f"{path}: {len(self.data[facts.st_ino])} bytes, but a size of {facts.st_size}")
        try:
            xattr = os.getxattr(full, "user.kept").decode()
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
            xattr = None
        self.facts[facts.st_ino] = (stat.S_IMODE(facts.st_mode), xattr)


def shape(tree, facts):
    """What is where, with a file told by the first of its names, so that two can be compared."""
    first, result = {}, {}
    for path in sorted(tree):
        entry = tree[path]
        if entry[0] == "f":
            entry = ("f", first.setdefault(entry[1], path), facts(entry[1]))
        result[path] = entry
    return result


class Comparison:
    def __init__(self, log, floor, found, writeback):
        self.candidates, self.first, self.synced = log.candidates(floor)
        self.found = found
        self.writeback = writeback
        self.shape = shape(found.tree, lambda number: found.facts[number])

    def matching(self):
        """The candidates that the directory may be, and of the others what is wrong with them."""
        good, wrong = [], []
        for index in range(self.first, len(self.candidates)):
            reasons = self.differences(index)
            if reasons:
                wrong.append((self.candidates[index], reasons))
            else:
                good.append(self.candidates[index])
        return good, wrong

    def differences(self, index):
        state = self.candidates[index].state
        wanted = shape(state.tree, lambda number: (state.files[number].mode, state.files[number].xattr))
        if wanted != self.shape:
            paths = sorted({*wanted, *self.shape})
            return [
                f"{path}: {self.shape.get(path)} instead of {wanted.get(path)}"
                for path in paths
                if wanted.get(path) != self.shape.get(path)
            ]
        seen, reasons = set(), []
        for path, entry in state.tree.items():
            if entry[0] != "f" or entry[1] in seen:
                continue
            seen.add(entry[1])
            check = self.loosely if self.writeback else self.exactly
            reason = check(index, entry[1], self.found.data[self.found.tree[path][1]])
            if reason is not None:
                reasons.append(f"{path}: {reason}")
        return reasons

    def exactly(self, index, number, data):
        """Every byte as in this state; or stored in place later, whole words of it."""
        file = self.candidates[index].state.files[number]
        if file.data == data:
            return None
        if len(file.data) != len(data):
            return f"{len(data)} bytes instead of {len(file.data)}"
        later = [c.state.files[number] for c in self.candidates[index + 1 :] if number in c.state.files]
        for block, generation in enumerate(file.generations):
            start, end = block * BLOCK, min((block + 1) * BLOCK, len(data))
            if file.data[start:end] == data[start:end]:
                continue
            inside = [
                other.data
                for other in dict.fromkeys(later)
                if generation and len(other.generations) > block and other.generations[block] == generation
            ]
            for at in range(start, end, WORD):
                word = data[at : min(at + WORD, end)]
                if word != file.data[at : at + len(word)] and all(word != other[at : at + len(word)] for other in inside):
                    return f"byte {at}: {word.hex()} instead of {file.data[at : at + len(word)].hex()}"
        return None

    def loosely(self, index, number, data):
        """As at the last fsync of the file; what came later may be there, byte for byte."""
        since = self.synced.get(number, -1)
        window = list(
            dict.fromkeys(
                c.state.files[number] for c in self.candidates if c.position > since and number in c.state.files
            )
        )
        if since < 0:
            # A file that gets its name with bytes in it was empty once.
            window.append(File())
        sizes = [len(file.data) for file in window]
        if not min(sizes) <= len(data) <= max(sizes):
            return f"{len(data)} bytes instead of {min(sizes)} to {max(sizes)}"
        if len(window) == 1:
            return None if window[0].data == data else "not what was synced"
        for start in range(0, len(data), BLOCK):
            piece = data[start : start + BLOCK]
            pieces = [file.data[start : start + len(piece)] for file in window]
            if piece in pieces:
                continue
            for at, byte in enumerate(piece):
                values = {other[at] if at < len(other) else 0 for other in pieces}
                if byte not in values and (byte != 0 or len(values) == 1):
                    return f"byte {start + at}: {byte} instead of one of {sorted(values)}"
        return None


def moments(candidates):
    return [(c.since, c.until) for c in candidates]


def common(choices):
    """True when one moment is in an interval of every client."""
    starts = sorted({since for choice in choices for since, _ in choice})
    return any(all(any(s <= at <= u for s, u in choice) for choice in choices) for at in starts)


def manifest_of(root, name):
    found = Found(os.path.join(root, name))
    files = {number: [digest(data), *found.facts[number], found.links[number]] for number, data in found.data.items()}
    return {f"{name}/{path}": ["f", *files[entry[1]]] if entry[0] == "f" else list(entry) for path, entry in found.tree.items()}


def check_kept(mount, path, problems):
    """Returns the number of bytes compared."""
    with open(path) as file:
        kept = json.load(file)
    for name, wanted in kept.items():
        found = manifest_of(mount, name) if os.path.isdir(os.path.join(mount, name)) else {}
        for path in sorted({*wanted["entries"], *found}):
            if wanted["entries"].get(path) != found.get(path):
                problems.append(f"kept {path}: {found.get(path)} instead of {wanted['entries'].get(path)}")
    return sum(wanted["bytes"] for wanted in kept.values())


def check_log(log, floor, arguments, problems):
    """Returns the bytes compared, and when what was found was the state."""
    found = Found(os.path.join(arguments.mount, log.name))
    for number, links in found.links.items():
        names = [path for path, entry in found.tree.items() if entry == ("f", number)]
        if len(names) != links:
            problems.append(f"{log.name}: {names} have a link count of {links}")
    good, wrong = Comparison(log, floor, found, arguments.writeback).matching()
    if not good:
        nearest = min(wrong, key=lambda pair: len(pair[1]))
        problems.append(
            f"{log.name}: not the state after any of {floor} to {len(log.operations)} operations; "
            f"nearest is {nearest[0].position}: {'; '.join(nearest[1][:TOLD])}; last: {log.tail()}"
        )
    return sum(map(len, found.data.values())), moments(good)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mount")
    parser.add_argument("promise", choices=["all", "synced"])
    parser.add_argument("logs", nargs="*")
    parser.add_argument("--writeback", action="store_true")
    parser.add_argument("--kept")
    parser.add_argument("--manifest")
    arguments = parser.parse_args()
    logs = [Log(path) for path in arguments.logs]
    last = max([log.last_sync() for log in logs], default=0)
    problems, checked, choices, promised = [], 0, [], 0
    for log in logs:
        floor = log.returned() if arguments.promise == "all" else log.floor(last)
        promised += floor
        bytes_checked, choice = check_log(log, floor, arguments, problems)
        checked += bytes_checked
        choices.append(choice)
    if choices and all(choices) and not common(choices):
        problems.append(f"the clients' directories are not of one moment: {choices}")
    if arguments.kept and os.path.exists(arguments.kept):
        checked += check_kept(arguments.mount, arguments.kept, problems)
    if arguments.manifest:
        keep(arguments, logs)
    operations = sum(log.returned() for log in logs)
    print(json.dumps({"operations": operations, "promised": promised, "bytes": checked, "problems": problems}))


def keep(arguments, logs):
    """Written down, and made durable by one fsync of the root: it covers everything."""
    kept = {}
    for log in logs:
        entries = manifest_of(arguments.mount, log.name)
        size = sum(os.lstat(os.path.join(arguments.mount, path)).st_size for path, entry in entries.items() if entry[0] == "f")
        kept[log.name] = {"entries": entries, "bytes": size}
    fd = os.open(arguments.mount, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    with open(arguments.manifest, "w") as file:
        json.dump(kept, file)


main()
