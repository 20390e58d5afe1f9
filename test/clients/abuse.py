"""What clients do to a mount that nobody should, one kind at a time: abuse.py KIND DIRECTORY […]."""
import mmap
import os
import random
import sys
import time

from telling import expect, fallocate, open_for, outcome, tell

KEEP_SIZE, PUNCH_HOLE = 1, 2
BLOCK = 4096
TIB = 1 << 40
EURO = "€".encode()
RAW = [b"\xff\xfe\x80", b"\xc3\x28", b"new\nline", b"\x01\x7f", b" ", b"-rf", b"\xed\xa0\x80", b"..."]
LONG = [b"n" * 255, EURO * 85, b"\xff" * 255]


def names():
    for name in RAW + LONG:
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        os.write(fd, name)
        os.close(fd)
    listed = set(os.listdir(b"."))
    tell("all names are listed, byte for byte", listed == set(RAW + LONG), listed)
    long = b"n" * 256
    for what, body in [
        ("create", lambda: os.close(os.open(long, os.O_CREAT, 0o600))),
        ("create in UTF-8", lambda: os.close(os.open(EURO * 86, os.O_CREAT, 0o600))),
        ("mkdir", lambda: os.mkdir(long)),
        ("rename", lambda: os.rename(RAW[0], long)),
        ("link", lambda: os.link(RAW[0], long)),
        ("symlink", lambda: os.symlink(b"x", long)),
        ("lookup", lambda: os.stat(long)),
        ("a target of 4096 bytes", lambda: os.symlink(b"t" * 4096, b"target")),
    ]:
        expect(f"{what} of 256 bytes" if "target" not in what else what, body, "ENAMETOOLONG")
    os.symlink(b"t" * 4095, b"target")
    tell("a target of 4095 bytes", os.readlink(b"target") == b"t" * 4095)


def names_again():
    for name in RAW + LONG:
        with open(name, "rb") as file:
            tell(f"{name[:12]} is there", file.read() == name)
    os.rename(LONG[0], b"short")
    os.rename(b"short", LONG[0])
    tell("renamed and back", os.path.exists(LONG[0]))


def deep(depth):
    for level in range(depth):
        name = f"{level:04}".rjust(255, "d")
        os.mkdir(name)
        os.chdir(name)
    with open("bottom", "w") as file:
        file.write("bottom")
    tell(f"{depth} directories deep", os.stat("bottom").st_size == 6)


def deep_again(depth):
    """The top was renamed to `top` meanwhile."""
    os.chdir("top")
    for level in range(1, depth):
        os.chdir(f"{level:04}".rjust(255, "d"))
    with open("bottom") as file:
        tell("the bottom is where it was", file.read() == "bottom")
    up = os.stat("/".join([".."] * 900))
    tell("and the way up as well", os.path.samestat(up, os.stat(up_from(".", 900))))


def up_from(path, levels):
    return os.path.join(path, *[".."] * levels)


def large_directory(count):
    os.mkdir("large")
    began = time.monotonic()
    for at in range(count):
        os.close(os.open(f"large/file-{at:06}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    made = time.monotonic()
    listed = [entry.name for entry in os.scandir("large")]
    tell(f"{count} names, each once", len(listed) == count and len(set(listed)) == count, len(listed))
    scanned = time.monotonic()
    sample = random.Random(count).sample(range(count), 2000)
    found = sum(os.stat(f"large/file-{at:06}").st_nlink for at in sample)
    tell("each that is looked up is found", found == len(sample), found)
    expect("one that is not there", lambda: os.stat("large/file-x"), "ENOENT")
    looked = time.monotonic()
    seen = 0
    with os.scandir("large") as entries:
        for entry in entries:
            os.unlink(entry.path)
            seen += 1
    gone = time.monotonic()
    tell("what is removed while it is listed is listed once", seen == count, seen)
    expect("rmdir of what is left of it", lambda: os.rmdir("large"), "done")
    steps = [made - began, scanned - made, looked - scanned, gone - looked]
    tell("seconds: create, list, look up, remove: " + " ".join(f"{step:.1f}" for step in steps), True)


def sparse():
    size = 8 * TIB
    middle, end = 3 * TIB, size - BLOCK
    fd = os.open("sparse", os.O_CREAT | os.O_RDWR, 0o600)
    os.ftruncate(fd, size)
    os.pwrite(fd, b"end!", size - 4)
    os.pwrite(fd, b"middle", middle + 5)
    found = os.fstat(fd)
    tell("8 TiB, in two blocks", found.st_size == size and found.st_blocks == 16, found)
    tell("SEEK_DATA from the start", os.lseek(fd, 0, os.SEEK_DATA) == middle)
    tell("SEEK_HOLE from there", os.lseek(fd, middle, os.SEEK_HOLE) == middle + BLOCK)
    tell("SEEK_DATA from there", os.lseek(fd, middle + BLOCK, os.SEEK_DATA) == end)
    tell("SEEK_HOLE at the end", os.lseek(fd, end, os.SEEK_HOLE) == size)
    expect("SEEK_DATA behind the end", lambda: os.lseek(fd, size, os.SEEK_DATA), "ENXIO")
    tell("zeros in between", os.pread(fd, 1 << 20, 5 * TIB + 123) == bytes(1 << 20))
    tell("the middle", os.pread(fd, 20, middle) == b"\0\0\0\0\0middle" + bytes(9))
    tell("the end", os.pread(fd, 100, size - 4) == b"end!")
    with mmap.mmap(fd, BLOCK, offset=7 * TIB) as view:
        tell("a page mapped at 7 TiB", view[:] == bytes(BLOCK))
        view[9:13] = b"page"
        view.flush()
    tell("what was stored there", os.pread(fd, 4, 7 * TIB + 9) == b"page")
    fallocate(fd, KEEP_SIZE | PUNCH_HOLE, TIB, 6 * TIB)
    tell("punched", os.lseek(fd, 0, os.SEEK_DATA) == 7 * TIB)
    expect("allocating it all", lambda: fallocate(fd, 0, 0, size), "ENOSPC")
    tell("which changes nothing", os.fstat(fd).st_blocks == 16)
    limit = 1 << 52
    os.ftruncate(fd, limit)
    os.pwrite(fd, b"!", limit - 1)
    for what, body in [
        ("truncate to more than 4 PiB", lambda: os.ftruncate(fd, limit + 1)),
        ("a write there", lambda: os.pwrite(fd, b"x", limit)),
        ("fallocate there", lambda: fallocate(fd, 0, limit, BLOCK)),
    ]:
        expect(what, body, "EFBIG")
    tell("which changes nothing either", os.fstat(fd).st_size == limit)
    os.ftruncate(fd, size)
    os.close(fd)


def churn(kind):
    """Goes on until it is killed; says when it is in the middle of it."""
    me = f"{kind}-{os.getpid()}"
    if kind == "write":
        fd = os.open(me, os.O_CREAT | os.O_WRONLY, 0o600)
        body = lambda: os.pwrite(fd, b"w" * (4 << 20), 0)
    elif kind == "list":
        body = lambda: [outcome(entry.stat) for entry in os.scandir(".")]
    elif kind == "names":
        def body():
            open_for(me, lambda fd: None, os.O_CREAT | os.O_WRONLY)
            os.rename(me, me + "-2")
            os.unlink(me + "-2")
    else:
        fd = os.open(me, os.O_CREAT | os.O_RDWR, 0o600)
        os.ftruncate(fd, 4 << 20)
        view = mmap.mmap(fd, 4 << 20)
        def body():
            for at in range(0, 4 << 20, BLOCK):
                view[at : at + 6] = b"mapped"
    body()
    print("ready", flush=True)
    while True:
        body()


def main():
    os.chdir(sys.argv[2])
    kind, rest = sys.argv[1], sys.argv[3:]
    if kind == "churn":
        churn(rest[0])
    kinds = {"names": names, "names-again": names_again, "sparse": sparse}
    counted = {"deep": deep, "deep-again": deep_again, "large-directory": large_directory}
    if kind in kinds:
        kinds[kind]()
    else:
        counted[kind](int(rest[0]))


main()
