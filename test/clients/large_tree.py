"""A tree of many files, three levels deep, by processes that share the work: large_tree.py KIND
DIRECTORY COUNT …. What is where, and what is in it, follows from COUNT alone."""
import os
import random
import sys
import time

from telling import tell

PER_DIRECTORY = 500
"""One file of so many has bytes in it: a block of data and an extent."""
SHARE = 4
SAMPLE = 2000
"""Where the first directory of the tree goes: three levels below another."""
MOVED = "moved"


class Tree:
    def __init__(self, count):
        self.count = count
        self.width = 3
        while self.width**3 * PER_DIRECTORY < count:
            self.width += 1
        self.per_leaf = -(-count // self.width**3)
        self.moved = False

    def leaf(self, number):
        width = self.width
        return [f"{number // width**2:02}", f"{number // width % width:02}", f"{number % width:02}"]

    def place(self, words):
        if self.moved and words[0] == "00":
            words = [f"{self.width - 1:02}", MOVED, *words[1:]]
        return os.path.join("tree", *words)

    def path(self, at):
        return os.path.join(self.place(self.leaf(at // self.per_leaf)), name_of(at))

    def directories(self):
        """Each directory with the names that are in it: what a walk must find."""
        numbers = [f"{number:02}" for number in range(self.width)]
        found = {"tree": set(numbers[1:] if self.moved else numbers)}
        for one in numbers:
            found[self.place([one])] = set(numbers)
            for two in numbers:
                found[self.place([one, two])] = set(numbers)
        if self.moved:
            found[os.path.join("tree", numbers[-1])].add(MOVED)
        return found

    def files(self):
        """The same for the directories that have files: a range of numbers each."""
        for number in range(self.width**3):
            first = number * self.per_leaf
            last = min(first + self.per_leaf, self.count)
            yield self.place(self.leaf(number)), range(first, last)


def name_of(at):
    return f"file-{at:07}"


def content(at, count):
    return f"file {at} of {count}\n".encode() * (1 + at % 7) if at % SHARE == 0 else b""


def make(tree, part, parts):
    """Each process makes every `parts`th file: all of them are in the same directory at once."""
    began = time.monotonic()
    for directory, numbers in tree.files():
        os.makedirs(directory, exist_ok=True)
        for at in numbers:
            if at % parts != part:
                continue
            path = os.path.join(directory, name_of(at))
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            bytes_of_it = content(at, tree.count)
            if bytes_of_it:
                os.write(fd, bytes_of_it)
            os.close(fd)
    told("make", began)


def walk(tree):
    """Every name of every directory, each once and nothing else."""
    began = time.monotonic()
    listed = {top: (dirs, files) for top, dirs, files in os.walk("tree", onerror=fail)}
    count = sum(len(files) for _, files in listed.values())
    tell(f"a walk finds {tree.count} files", count == tree.count, count)
    wrong = []
    for top, names in tree.directories().items():
        dirs, files = listed.pop(top, ([], []))
        if files or len(dirs) != len(names) or set(dirs) != names:
            wrong.append(top)
    for top, numbers in tree.files():
        dirs, files = listed.pop(top, ([], []))
        if dirs or len(files) != len(numbers) or set(files) != {name_of(at) for at in numbers}:
            wrong.append(top)
    tell("each directory holds its names, each once", not wrong, wrong[:10])
    tell("there is no other directory", not listed, list(listed)[:10])
    told("walk", began)


def fail(error):
    raise error


def sample(tree, seed):
    began = time.monotonic()
    numbers = random.Random(seed).sample(range(tree.count), min(SAMPLE, tree.count))
    wrong = [at for at in numbers if read(tree.path(at)) != content(at, tree.count)]
    full = sum(at % SHARE == 0 for at in numbers)
    what = f"{len(numbers)} files of a sample, {full} not empty, hold their own bytes"
    tell(what, not wrong and full > 0, wrong[:10])
    told("sample", began)


def read(path):
    with open(path, "rb") as file:
        found = file.read()
        return found if os.fstat(file.fileno()).st_size == len(found) else None


def move(tree):
    """A directory with a large subtree goes into another, and each file below it with it."""
    old = tree.place(["00"])
    tree.moved = True
    new = tree.place(["00"])
    inode = os.stat(old).st_ino
    links = os.stat("tree").st_nlink, os.stat(os.path.dirname(new)).st_nlink
    began = time.monotonic()
    os.rename(old, new)
    told("rename", began)
    tell("it is at its new place", os.stat(new).st_ino == inode and not os.path.exists(old))
    now = os.stat("tree").st_nlink, os.stat(os.path.dirname(new)).st_nlink
    tell("both parents count it", now == (links[0] - 1, links[1] + 1), (links, now))


def remove(tree, part, parts):
    tops = [f"tree/{number:02}" for number in range(tree.width)][1:]
    os.execvp("rm", ["rm", "-r", *tops[part::parts]])


def gone(_):
    os.rmdir("tree")
    tell("nothing is left", os.listdir(".") == [], os.listdir("."))


def told(what, began):
    tell(f"seconds: {what} {time.monotonic() - began:.2f}", True)


def main():
    kind, directory, *numbers = sys.argv[1:]
    os.chdir(directory)
    count, *rest = map(int, numbers)
    tree = Tree(count)
    if kind.endswith("-moved"):
        kind, tree.moved = kind.removesuffix("-moved"), True
    kinds = {"make": make, "walk": walk, "sample": sample, "move": move}
    kinds |= {"remove": remove, "gone": gone}
    kinds[kind](tree, *rest)


main()
