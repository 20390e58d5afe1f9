"""Mixed work in the directory sys.argv[2], and back to nothing. The harness calls work(), hold(),
heal() and empty(); the modules os, mmap and errno are there.
"""
import ctypes
import random

BLOCK = 4096
FILES = 60
OPEN = 12
MAPPED = 6
MOST = 256 * 1024
VICTIMS = 6
libc = ctypes.CDLL(None, use_errno=True)
os.makedirs(sys.argv[2], exist_ok=True)
os.chdir(sys.argv[2])
held, maps, names, counter = [], [], [], [0]
victims = []


def fresh():
    counter[0] += 1
    return f"f{counter[0]}"


def opened(name, flags=os.O_RDWR):
    return os.open(name, flags | os.O_CLOEXEC, 0o600)


def using(name, run, flags=os.O_RDWR):
    fd = opened(name, flags)
    try:
        return run(fd)
    finally:
        os.close(fd)


def call(name, *args):
    if getattr(libc, name)(*args) < 0:
        raise OSError(ctypes.get_errno(), name)


def data():
    return random.randbytes(random.choice([1, 100, BLOCK, 5000, 40_000]))


def offset():
    return random.randrange(MOST)


def create():
    names.append(fresh())
    using(names[-1], lambda fd: os.write(fd, data()), os.O_CREAT | os.O_EXCL | os.O_RDWR)


def write(name):
    bytes = data()

    def run(fd):
        at = offset()
        os.pwrite(fd, bytes, at)
        assert os.pread(fd, len(bytes), at) == bytes, "other bytes than were written"

    using(name, run)


def read(name):
    using(name, lambda fd: os.read(fd, MOST))


def unlink(name):
    names.remove(name)
    os.unlink(name)


def rename(name):
    names.remove(name)
    names.append(fresh())
    os.rename(name, names[-1])


def replace(name):
    other = random.choice(names)
    if other != name:
        names.remove(name)
        os.rename(name, other)


def link(name):
    names.append(fresh())
    os.link(name, names[-1])


def symlink(name):
    names.append(fresh())
    os.symlink(name, names[-1])


def copy(name):
    create()
    using(name, lambda fd: using(names[-1], lambda to: os.copy_file_range(fd, to, MOST, 0, 0)))


def truncate(name):
    os.truncate(name, offset())


def allocate(name):
    mode = random.choice([0, 1, 3, 3, 0x10])
    using(name, lambda fd: call("fallocate", fd, mode, ctypes.c_long(offset()), ctypes.c_long(50_000)))


def tmpfile():
    def run(fd):
        os.write(fd, data())
        if random.random() < 0.5:
            names.append(fresh())
            call("linkat", -100, b"/proc/self/fd/%d" % fd, -100, names[-1].encode(), 0x400)

    using(".", run, os.O_TMPFILE | os.O_RDWR)


def hold_open(name):
    held.append(opened(name))
    if len(held) > OPEN:
        os.close(held.pop(random.randrange(OPEN)))


def map_file(name):
    def run(fd):
        if os.fstat(fd).st_size < BLOCK:
            os.truncate(fd, BLOCK)
        maps.append(mmap.mmap(fd, BLOCK))

    using(name, run)
    maps[-1][0:8] = b"by store"
    if random.random() < 0.3:
        maps[-1].flush()
    if len(maps) > MAPPED:
        maps.pop(0).close()


def directory():
    name = fresh()
    os.mkdir(name)
    os.mkdir(f"{name}/in")
    os.rename(f"{name}/in", f"{name}/out")
    os.rmdir(f"{name}/out")
    os.rmdir(name)


def facts(name):
    os.setxattr(name, "user.soak", data()[:1000], follow_symlinks=False) if not os.path.islink(name) else None
    os.chmod(name, random.choice([0o600, 0o644])) if not os.path.islink(name) else None
    os.utime(name, follow_symlinks=False)
    os.listdir(".")


def sync(name):
    using(name, os.fsync)


ON_FILES = [write] * 6 + [read] * 4 + [unlink] * 3 + [rename, replace, link, symlink, copy, truncate, allocate] + [
    hold_open, hold_open, map_file, map_file, facts, facts, sync,
]  # fmt: skip
# A symlink may lead nowhere, or in a circle; names come and go. That is part of the work.
EXPECTED = (errno.ENOENT, errno.ELOOP, errno.EPERM)


def work(seconds, seed):
    """Returns the number of operations."""
    random.seed(seed)
    until, done = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        if len(names) < FILES // 2 or (len(names) < FILES and random.random() < 0.3):
            random.choice([create, create, create, tmpfile, directory])()
        else:
            try:
                random.choice(ON_FILES)(random.choice(names))
            except OSError as error:
                if error.errno not in EXPECTED:
                    raise
        done += 1
    return done


def hold():
    """Files that are open and mapped, for failures to hit; returns their inode numbers."""
    for number in range(VICTIMS):
        fd = opened(f"victim{number}", os.O_CREAT | os.O_RDWR)
        os.write(fd, random.randbytes(8 * BLOCK))
        victims.append((fd, mmap.mmap(fd, 8 * BLOCK)))
    return [os.fstat(fd).st_ino for fd, _map in victims]


def heal(number, block):
    """After a failure of that block: the handle is dead, a new one reads the rest, and heals it."""
    fd, mapping = victims[number]
    for at in (block, (block + 1) % 8):
        try:
            os.pread(fd, BLOCK, at * BLOCK)
            return "a dead handle can read"
        except OSError as error:
            if error.errno != errno.EIO:
                raise
    mapping.close()
    try:
        os.close(fd)
    except OSError as error:
        # The close of a dead handle may say so, too.
        if error.errno != errno.EIO:
            raise
    bytes = random.randbytes(BLOCK)
    step = "open"
    try:
        fd = opened(f"victim{number}")
        step = "read beside"
        os.pread(fd, BLOCK, ((block + 1) % 8) * BLOCK)
        step = "write"
        os.pwrite(fd, bytes, block * BLOCK)
        step = "map"
        victims[number] = (fd, mmap.mmap(fd, 8 * BLOCK))
        step = "read"
        found = os.pread(fd, BLOCK, block * BLOCK)
    except OSError as error:
        return f"{step}: {error}"
    return "healed" if found == bytes else "other bytes than were written"


def empty():
    """As it was before work() and hold()."""
    for fd, mapping in victims:
        mapping.close()
        os.close(fd)
    for mapping in maps:
        mapping.close()
    for fd in held:
        os.close(fd)
    for name in os.listdir("."):
        os.unlink(name)
    victims.clear()
    maps.clear()
    held.clear()
    names.clear()
