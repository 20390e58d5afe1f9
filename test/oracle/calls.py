"""Makes the calls of calls.ts below sys.argv[2], a line for each with what it gave.

Whose they are is the effective user's, with all rights kept: rights are the kernel's to check, and
are compared on a mount. Lines say nothing that depends on the filesystem or the clock: a time that
no call has set is `now`; directories have no size.
"""
import ctypes, hashlib, json, shutil, stat

root = sys.argv[2]
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_SECUREBITS, NO_SETUID_FIXUP = 28, 4
if libc.prctl(PR_SET_SECUREBITS, NO_SETUID_FIXUP, 0, 0, 0):
    raise OSError(ctypes.get_errno(), "prctl")
os.setgroups([])
os.umask(0o022)
AT_FDCWD, AT_SYMLINK_FOLLOW, TICK = -100, 0x400, 0.01
SET_BY_CALLS = 1_000_000_000
SAMPLE = 1 << 20
slots = {}


def call(name, *args):
    ctypes.set_errno(0)
    if getattr(libc, name)(*args) < 0:
        raise OSError(ctypes.get_errno(), name)


def payload(number, length):
    unit = hashlib.md5(str(number).encode()).digest() + b"|"
    return (unit * (length // len(unit) + 1))[:length]


def digest(data):
    return f"{len(data)}:{hashlib.md5(data).hexdigest()}"


def when(seconds):
    return str(seconds) if seconds < SET_BY_CALLS else "now"


def describe(found):
    mode = found.st_mode
    regular = stat.S_ISREG(mode)
    words = [f"{mode:o}", f"{found.st_uid}:{found.st_gid}", f"n{found.st_nlink}"]
    words.append(f"s{found.st_size if regular or stat.S_ISLNK(mode) else 0}")
    words.append(f"r{found.st_rdev} b{found.st_blocks if regular else 0}")
    if not stat.S_ISDIR(mode) and not stat.S_ISLNK(mode):
        words.append(f"a:{when(int(found.st_atime))}")
    words.append(f"m:{when(int(found.st_mtime))}")
    return " ".join(words)


class Refused(Exception):
    """What is not the filesystem's to judge."""


def file_of(slot, writes=False):
    if slot not in slots:
        raise Refused("closed")
    fd, writable = slots[slot]
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise Refused("no file")
    if writes and not writable:
        raise Refused("read-only")
    return fd


def close(slot):
    if slot not in slots:
        raise Refused("closed")
    os.close(slots.pop(slot)[0])
    return ""


def keep(slot, fd, writable):
    if slot in slots:
        close(slot)
    slots[slot] = fd, writable
    return describe(os.fstat(fd))


def do_open(slot, path, flags, mode):
    kind = 0
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except OSError:
        pass
    if kind in (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR):
        raise Refused("special")
    writable = "WRITE" in flags
    bits = os.O_RDWR if writable else os.O_RDONLY
    for flag in flags:
        bits |= 0 if flag == "WRITE" else getattr(os, "O_" + flag)
    return keep(slot, os.open(path, bits, mode), writable)


def do_tmpfile(slot, path, mode):
    return keep(slot, os.open(path, os.O_TMPFILE | os.O_RDWR, mode), True)


def do_linkSlot(slot, path):
    source = b"/proc/self/fd/%d" % file_of(slot)
    call("linkat", AT_FDCWD, source, AT_FDCWD, os.fsencode(path), AT_SYMLINK_FOLLOW)


def do_close(slot):
    return close(slot)


def do_fstat(slot):
    if slot not in slots:
        raise Refused("closed")
    return describe(os.fstat(slots[slot][0]))


def do_fsync(slot):
    os.fsync(file_of(slot))


def do_read(slot, offset, length):
    return digest(os.pread(file_of(slot), length, offset))


def do_write(slot, offset, length, number):
    return os.pwrite(file_of(slot, True), payload(number, length), offset)


def do_ftruncate(slot, size):
    os.ftruncate(file_of(slot, True), size)


def do_fallocate(slot, offset, length, mode):
    call("fallocate", file_of(slot, True), mode, ctypes.c_long(offset), ctypes.c_long(length))


def do_copy(slot, offset, length, to, onto):
    return os.copy_file_range(file_of(slot), file_of(to, True), length, offset, onto)


def do_seek(slot, offset, whence):
    return os.lseek(file_of(slot), offset, os.SEEK_DATA if whence == "data" else os.SEEK_HOLE)


def do_truncate(path, size):
    os.truncate(path, size)


def do_stat(path, follow):
    return describe(os.stat(path, follow_symlinks=follow))


def names_of(path):
    def shown(entry):
        return f"{entry.name}{'/' if entry.is_dir(follow_symlinks=False) else ''}{'@' if entry.is_symlink() else ''}"

    with os.scandir(path) as found:
        return sorted(shown(entry) for entry in found)


def do_list(path):
    return " ".join(names_of(path))


def do_readlink(path):
    return os.readlink(path)


def do_mkdir(path, mode):
    os.mkdir(path, mode)


def do_mknod(path, kind, mode):
    types = {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "device": stat.S_IFCHR, "file": stat.S_IFREG}
    os.mknod(path, types[kind] | mode, os.makedev(1, 3) if kind == "device" else 0)


def do_symlink(path, target):
    os.symlink(target, path)


def do_link(path, onto):
    os.link(path, onto, follow_symlinks=False)


def do_rename(path, onto, flags):
    call("renameat2", AT_FDCWD, os.fsencode(path), AT_FDCWD, os.fsencode(onto), flags)


def do_unlink(path):
    os.unlink(path)


def do_rmdir(path):
    os.rmdir(path)


def do_chmod(path, mode):
    os.chmod(path, mode)


def do_chown(path, uid, gid):
    os.chown(path, uid, gid, follow_symlinks=False)


class Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2


def do_utime(path, atime, mtime):
    def wanted(time):
        return {None: Timespec(0, UTIME_OMIT), "now": Timespec(0, UTIME_NOW)}.get(time) or Timespec(time, 0)

    call("utimensat", AT_FDCWD, os.fsencode(path), (Timespec * 2)(wanted(atime), wanted(mtime)), 0)


def do_setxattr(path, name, value, flags):
    os.setxattr(path, name, bytes.fromhex(value), flags)


def do_getxattr(path, name):
    return digest(os.getxattr(path, name))


def do_listxattr(path):
    return " ".join(sorted(os.listxattr(path)))


def do_removexattr(path, name):
    os.removexattr(path, name)


def everything(path="."):
    """Paths below, parents first, in the order of their names."""
    for name in sorted(os.listdir(path)):
        below = f"{path}/{name}"
        yield below
        if stat.S_ISDIR(os.lstat(below).st_mode):
            yield from everything(below)


def contents(path, size):
    with open(path, "rb", buffering=0) as file:
        head = os.pread(file.fileno(), SAMPLE, 0)
        return digest(head + os.pread(file.fileno(), SAMPLE, max(len(head), size - SAMPLE)))


def survey():
    lines = []
    for path in everything():
        found = os.lstat(path)
        words = [path, describe(found)]
        if stat.S_ISLNK(found.st_mode):
            words.append(os.readlink(path))
        else:
            words += [f"{name}={digest(os.getxattr(path, name))}" for name in sorted(os.listxattr(path))]
        if stat.S_ISREG(found.st_mode):
            words.append(contents(path, found.st_size))
        lines.append(" ".join(words))
    return lines


def again():
    """Nothing is open; all is there."""
    for slot in list(slots):
        close(slot)
    return " | ".join(survey())


do_remount = do_crash = again


def do_checkpoint():
    return ""


def clocks():
    paths = ((path, os.lstat(path)) for path in [".", *everything()])
    open_files = ((f"slot {slot}", os.fstat(fd)) for slot, (fd, _) in sorted(slots.items()))
    return {(where, found.st_ino): found for where, found in [*paths, *open_files]}


def changed(before, after):
    words = []
    for key, old in before.items():
        if key not in after:
            continue
        new, where = after[key], key[0]
        for time in ("st_mtime_ns", "st_ctime_ns"):
            if getattr(old, time) != getattr(new, time):
                words.append(f"{where} {time[3:8]}")
    return " changed " + ", ".join(sorted(words))


def attempt(function, user, arguments):
    os.setegid(user)
    os.seteuid(user)
    try:
        given = function(**arguments)
        return "ok" if given is None else f"ok {given}"
    except Refused as refused:
        return str(refused)
    except OSError as error:
        # Two names for one number: the one that is said elsewhere.
        return errno.errorcode[error.errno].replace("ENOTSUP", "EOPNOTSUPP")
    finally:
        os.seteuid(0)
        os.setegid(0)


def make(one):
    name, user, watched = one.pop("do"), one.pop("user"), one.pop("watched")
    if not watched:
        return attempt(globals()["do_" + name], user, one)
    before = clocks()
    time.sleep(TICK)
    said = attempt(globals()["do_" + name], user, one)
    return said + changed(before, clocks())


def run(text):
    """A sequence in a directory of its own; the last line tells what is there in the end."""
    os.mkdir(f"{root}/tree", 0o755)
    os.chdir(f"{root}/tree")
    try:
        return [make(one) for one in json.loads(text)] + [again()]
    finally:
        for slot in list(slots):
            close(slot)
        os.chdir("/")
        shutil.rmtree(f"{root}/tree")
