"""Fills a mount and tells, line by line, what is possible in it then: [what, ok, detail]."""
import errno
import fcntl
import hashlib
import mmap
import os
import sys
import time

from telling import fallocate, open_for, outcome, possible, tell

FICLONE = 0x40049409
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
BLOCK = 4096
MIB = 1 << 20


def free():
    return os.statvfs(".").f_bfree


def spread(path, size, fill=b"x"):
    with open(path, "wb") as file:
        file.write(fill * size)


def picture():
    """All that can be seen of the tree, times left out."""
    seen = {}
    for top, folders, files in os.walk("."):
        for path in [os.path.join(top, name) for name in folders + files] + [top]:
            found = os.lstat(path)
            entry = [found.st_ino, found.st_mode, found.st_nlink, found.st_size, found.st_blocks]
            for name in os.listxattr(path, follow_symlinks=False):
                entry.append((name, os.getxattr(path, name, follow_symlinks=False).hex()))
            if os.path.islink(path):
                entry.append(os.readlink(path))
            elif os.path.isfile(path) and found.st_blocks > 0:
                with open(path, "rb") as file:
                    entry.append(hashlib.sha1(file.read()).hexdigest())
            seen[path] = entry
    return seen


def changes(before, after):
    paths = sorted(set(before) | set(after))
    return [(path, before.get(path), after.get(path)) for path in paths if before.get(path) != after.get(path)][:3]


def refused(operations, allowed=("ENOSPC",)):
    """Each of them fails, and nothing has changed."""
    before, space = picture(), free()
    for what, body in operations:
        got = outcome(body)
        tell(f"{what}: {'/'.join(allowed)}", got in allowed, got)
        after = picture()
        tell(f"{what} changed nothing", after == before and free() == space, changes(before, after))
        before = after


def fill(name, left):
    """Appends until `left` bytes are free; the free space only ever goes down."""
    falling, last = True, free()
    fd = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    for piece in (256 * 1024, BLOCK):
        try:
            while free() * BLOCK - left >= piece or left == 0:
                os.write(fd, b"f" * piece)
                falling, last = falling and free() <= last, free()
        except OSError as error:
            tell("what ends the filling is ENOSPC", error.errno == errno.ENOSPC, error)
    os.close(fd)
    tell("free space never grew while it was filled", falling)
    tell(f"{left} bytes are left", free() * BLOCK <= left + BLOCK, free() * BLOCK)


def prepare():
    os.makedirs("dir/empty")
    spread("whole", 4 * BLOCK)
    spread("long", 64 * BLOCK, b"l")
    spread("punched", 64 * BLOCK, b"p")
    spread("victim", MIB, b"v")
    spread("new", BLOCK, b"n")
    spread("old", 8 * BLOCK, b"o")
    spread("dir/inside", BLOCK)
    os.symlink("whole", "symlink")
    os.setxattr("whole", "user.short", b"value")
    with open("sparse", "wb") as file:
        file.truncate(4 * MIB)


def store_into_hole():
    def body(fd):
        with mmap.mmap(fd, 16 * BLOCK) as view:
            view[0:4] = b"mmap"
            view.flush()

    open_for("sparse", body)


def data_refused():
    def clone(fd):
        with open("long", "rb") as source:
            fcntl.ioctl(fd, FICLONE, source.fileno())

    def copy(fd):
        with open("long", "rb") as source:
            os.copy_file_range(source.fileno(), fd, MIB, 0, MIB)

    refused(
        [
            ("a write into a hole", lambda: open_for("sparse", lambda fd: os.pwrite(fd, b"w" * MIB, MIB))),
            ("an append", lambda: open_for("whole", lambda fd: os.write(fd, b"a" * BLOCK), os.O_WRONLY | os.O_APPEND)),
            ("fallocate of a hole", lambda: open_for("sparse", lambda fd: fallocate(fd, 0, 0, 2 * MIB))),
            ("fallocate behind the end", lambda: open_for("whole", lambda fd: fallocate(fd, KEEP_SIZE, MIB, 2 * MIB))),
            ("fallocate that extends", lambda: open_for("whole", lambda fd: fallocate(fd, 0, 0, 4 * MIB))),
            ("copy_file_range into a hole", lambda: open_for("sparse", copy)),
        ]
    )
    # The kernel learns of it when it writes the page back.
    refused([("a store into a mapped hole, at msync", store_into_hole)], ("ENOSPC", "EIO"))
    refused([("a clone, which there is none", lambda: open_for("sparse", clone))], ("EOPNOTSUPP", "ENOTSUP"))


def too_large():
    """1 MiB is left, and each of these needs 2: refused, or done up to a block that is told."""
    refused(
        [
            ("2 MiB of a hole, by fallocate", lambda: open_for("sparse", lambda fd: fallocate(fd, 0, MIB, 2 * MIB))),
            ("2 MiB of a hole, zeroed", lambda: open_for("sparse", lambda fd: fallocate(fd, ZERO_RANGE, MIB, 2 * MIB))),
            ("2 MiB behind the end", lambda: open_for("whole", lambda fd: fallocate(fd, KEEP_SIZE, MIB, 2 * MIB))),
            ("growing by 2 MiB, by fallocate", lambda: open_for("whole", lambda fd: fallocate(fd, 0, 4 * BLOCK, 2 * MIB))),
        ]
    )
    # Not even the first request of the kernel, which is of 1 MiB, fits as a whole.
    spread("more", 10 * BLOCK)
    new = os.urandom(2 * MIB)
    with open("fill", "rb") as file:
        old = file.read(2 * MIB)

    def copy(fd):
        with open("fill", "rb") as source:
            return os.copy_file_range(source.fileno(), fd, 2 * MIB, 0, MIB)

    def cut(path, size):
        return lambda: os.truncate(path, size)

    def punch():
        open_for("sparse", lambda fd: fallocate(fd, KEEP_SIZE | PUNCH_HOLE, MIB, 2 * MIB))

    appending = os.O_WRONLY | os.O_APPEND
    direct = os.O_RDWR | os.O_DIRECT
    aligned = mmap.mmap(-1, 2 * MIB)
    aligned[:] = new
    in_part("a write of 2 MiB into a hole", "sparse", MIB, new, lambda fd: os.pwrite(fd, new, MIB), undo=punch)
    in_part("the same, direct", "sparse", MIB, new, lambda fd: os.pwrite(fd, aligned, MIB), direct, undo=punch)
    in_part("2 MiB copied into a hole", "sparse", MIB, old, copy, undo=punch)
    in_part("2 MiB appended", "whole", 4 * BLOCK, new, lambda fd: os.write(fd, new), appending, cut("whole", 4 * BLOCK))
    in_part("2 MiB copied to the end", "long", MIB, old, copy, undo=cut("long", 64 * BLOCK))


def in_part(what, path, start, new, body, flags=os.O_RDWR, undo=None):
    """The first blocks of the new bytes are there, whole, and nothing of the rest."""
    before, space, done = picture(), free(), 0
    with open(path, "rb") as file:
        old = file.read()
    try:
        done = open_for(path, body, flags)
        tell(f"{what} does not fit", 0 < done < len(new) and done % BLOCK == 0, done)
    except OSError as error:
        tell(f"{what} does not fit", error.errno == errno.ENOSPC, error)
    used = (space - free()) * BLOCK
    tell(f"{what}: what is used is what was told", used == done, f"{used} used, {done} told")
    right = old[:start].ljust(start, b"\0") + new[:done] + old[start + done :] if done > 0 else old
    with open(path, "rb") as file:
        tell(f"{what}: these bytes and no others are there", file.read() == right, f"{done} bytes")
    changed = [path for path, _, _ in changes(before, picture())]
    tell(f"{what}: nothing else has changed", changed in ([], [f"./{path}"]), changed)
    undo()
    left = changes(before, picture())
    tell(f"{what}: undone, all is as before", left == [] and free() == space, left)


def data_possible():
    def overwrite(fd):
        os.pwrite(fd, b"O" * (2 * BLOCK), BLOCK // 2)
        os.fsync(fd)

    def store(fd):
        with mmap.mmap(fd, 4 * BLOCK) as view:
            view[BLOCK : BLOCK + 4] = b"mmap"
            view.flush()

    possible(
        [
            ("overwriting in place, and fsync", lambda: open_for("long", overwrite)),
            ("a store into mapped data", lambda: open_for("long", store)),
            ("renaming over another", lambda: os.rename("new", "old")),
            ("punching a hole", lambda: open_for("punched", lambda fd: fallocate(fd, KEEP_SIZE | PUNCH_HOLE, BLOCK + 7, 8 * BLOCK))),
            ("truncating", lambda: os.truncate("long", 3 * BLOCK + 5)),
            ("removing a name", lambda: os.unlink("victim")),
            ("removing an attribute", lambda: os.removexattr("whole", "user.short")),
            ("removing a directory", lambda: os.rmdir("dir/empty")),
        ]
    )
    with open("long", "rb") as file:
        right = b"l" * (BLOCK // 2) + b"O" * (BLOCK // 2) + b"mmap" + b"O" * (BLOCK // 2 * 3 - 4)
        right += b"l" * (BLOCK // 2 + 5)
        tell("the file that was overwritten is right", file.read() == right[: 3 * BLOCK + 5])
    with open("old", "rb") as file:
        tell("the name leads to the other file", file.read() == b"n" * BLOCK)


def remove_all(start):
    for top, folders, files in os.walk(".", topdown=False):
        for name in files:
            os.unlink(os.path.join(top, name))
        for name in folders:
            path = os.path.join(top, name)
            os.unlink(path) if os.path.islink(path) else os.rmdir(path)
    end = time.time() + 10
    while free() != start and time.time() < end:
        time.sleep(0.05)
    tell("without files all space is free again", free() == start, f"{free()} of {start}")


def data(left):
    start = free()
    prepare()
    fill("fill", left)
    if left == 0:
        data_refused()
    else:
        too_large()
    data_possible()
    before = free()
    spread("again", BLOCK)
    tell("what was given back is used again", free() < before)
    remove_all(start)


def names():
    """No block is free, so the image of the index cannot grow beyond its slots."""
    prepare()
    os.mkdir("many")
    fill("fill", 0)
    made = 0
    while outcome(lambda: os.close(os.open(f"many/{made:06}", os.O_CREAT | os.O_EXCL, 0o600))) == "done":
        made += 1
    tell("many files before the index is full", made > 1000, made)
    target = "t" * 2000
    refused(
        [
            ("create", lambda: os.close(os.open("another", os.O_CREAT | os.O_EXCL, 0o600))),
            ("an unnamed file", lambda: os.close(os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600))),
            ("mkdir", lambda: os.mkdir("another")),
            ("symlink", lambda: os.symlink(target, "another")),
            ("mknod", lambda: os.mkfifo("another")),
            ("link", lambda: os.link("whole", "another")),
            ("a long attribute", lambda: os.setxattr("whole", "user.long", b"x" * 8000)),
            ("rename to a new name", lambda: os.rename("whole", "n" * 200)),
        ]
    )
    data_possible()
    possible([(f"removing file {at}", lambda at=at: os.unlink(f"many/{at:06}")) for at in range(0, made, made // 3)])
    for at in range(made):
        if os.path.exists(f"many/{at:06}"):
            os.unlink(f"many/{at:06}")
    possible([(f"create in the room of others {at}", lambda at=at: spread(f"many/n{at}", 0)) for at in range(3)])


def main():
    os.chdir(sys.argv[2])
    mode = sys.argv[1]
    if mode == "names":
        names()
    elif mode == "prepare":
        prepare()
        fill("fill", 0)
    elif mode == "remove":
        remove_all(int(sys.argv[3]))
    else:
        data(int(sys.argv[3]))


main()
