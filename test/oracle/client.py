"""One random sequence of system calls in an empty directory; a line for each with what it gave.

    client.py DIRECTORY SEED OPERATIONS [FIRST [blocks]]

The sequence depends on the seed alone, never on results: two filesystems that behave alike print
the same lines, and a shorter run is a prefix of a longer one. Lines before FIRST are not printed. Allocated blocks are
compared with `blocks`: without it they may still be in the page cache.
"""
import ctypes, errno, hashlib, mmap, os, random, stat, struct, sys

directory, seed, operations = os.fsencode(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
first = int(sys.argv[4]) if len(sys.argv) > 4 else 0
with_blocks = 'blocks' in sys.argv[5:]
libc = ctypes.CDLL(None, use_errno=True)
rng = random.Random(seed)
os.umask(0o022)
os.setgroups([])

NAMES = [b'a', b'b', b'c', b'\xff\x01 odd\n', b'x' * 255, b'y' * 256]
DIRECTORIES = [b'', b'', b'd', b'd', b'e', b'd/f', b'd/f/g', b'missing']
FLAGS = [0, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_DIRECTORY,
         os.O_NOFOLLOW, os.O_CREAT | os.O_TRUNC, os.O_CREAT | os.O_APPEND, os.O_SYNC]
MODES = [0o644, 0o600, 0o666, 0o755, 0o4755, 0o2755, 0o6777, 0o1777, 0o000, 0o2775, 0o070]
USERS = [0, 0, 0, 1000, 1001]
SLOTS = [None] * 8
AT_FDCWD, AT_SYMLINK_FOLLOW = -100, 0x400
XATTRS = [b'user.one', b'user.two', b'trusted.t', b'security.s', b'user.', b'bogus.x', b'user.' + b'n' * 251]
# Later than what do_utime sets.
TIMES_MAX = 1 << 60
written = 0


def call(name, *args):
    ctypes.set_errno(0)
    result = getattr(libc, name)(*args)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def path():
    base = rng.choice(DIRECTORIES)
    name = rng.choices(NAMES, [30, 30, 20, 5, 2, 1])[0]
    if rng.random() < 0.03:
        return base or b'.'
    return base + b'/' + name if base else name


def offset():
    kind = rng.random()
    if kind < 0.03:
        return rng.randrange(1 << 40)
    return rng.randrange(300) * 4096 if kind < 0.4 else rng.randrange(1_200_000)


def length():
    return rng.choice([1, 100, 4095, 4096, 4097, 8192, 20_000, 70_000, 300_000])


def pattern(count):
    global written
    written += 1
    unit = struct.pack('<II', written, seed & 0xffffffff)
    return (unit * (count // 8 + 1))[:count]


def digest(data):
    return f'{len(data)}:{hashlib.blake2b(data, digest_size=6).hexdigest()}'


def when(nanoseconds):
    """A time that no call has set is one of the clock's."""
    return nanoseconds if nanoseconds < TIMES_MAX else 'now'


def describe(found):
    mode = found.st_mode
    if stat.S_ISREG(mode) and not mode & stat.S_IXGRP:
        # An sgid that means no execution: whether it stays after a write depends on the groups of
        # who wrote, of which a FUSE daemon is not told.
        mode &= ~stat.S_ISGID
    size = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    owner, blocks = f'{found.st_uid}:{found.st_gid}', ''
    if stat.S_ISREG(mode) and with_blocks:
        blocks = f' b{found.st_blocks}'
    # What is written to a pipe is the kernel's affair.
    modified = '' if stat.S_ISFIFO(mode) else f' m:{when(found.st_mtime_ns)}'
    return f'{mode:o} {owner} n{found.st_nlink} s{size} r{found.st_rdev}{blocks}{modified}'


def slot():
    return rng.randrange(len(SLOTS))


def handle(number):
    if SLOTS[number] is None:
        raise OSError(errno.EBADF, '')
    return SLOTS[number]


def keep(number, fd):
    if SLOTS[number] is not None:
        os.close(SLOTS[number])
    SLOTS[number] = fd
    return describe(os.fstat(fd))


def do_open():
    at, where, flags, mode = slot(), path(), rng.choice(FLAGS) | rng.choice([0, 1, 2, 2, 2]) | os.O_NONBLOCK, rng.choice(MODES)
    return lambda: keep(at, os.open(where, flags, mode))


def do_tmpfile():
    at, where, mode = slot(), rng.choice(DIRECTORIES) or b'.', rng.choice(MODES)
    return lambda: keep(at, os.open(where, os.O_TMPFILE | os.O_RDWR, mode))


def do_link_slot():
    at, where = slot(), path()
    return lambda: call('linkat', AT_FDCWD, b'/proc/self/fd/%d' % handle(at), AT_FDCWD, where, AT_SYMLINK_FOLLOW)


def do_close():
    at = slot()

    def run():
        fd = handle(at)
        SLOTS[at] = None
        os.close(fd)
    return run


def do_pwrite():
    at, data, where = slot(), pattern(length()), offset()
    return lambda: os.pwrite(handle(at), data, where)


def do_write():
    at, data = slot(), pattern(length())
    return lambda: (os.write(handle(at), data), os.lseek(SLOTS[at], 0, os.SEEK_CUR))


def do_pread():
    at, count, where = slot(), length(), offset()
    return lambda: digest(os.pread(handle(at), count, where))


def do_read():
    at, count = slot(), length()
    return lambda: digest(os.read(handle(at), count))


def do_whole():
    where = path()

    def run():
        fd = os.open(where, os.O_RDONLY | os.O_NONBLOCK)
        try:
            if os.fstat(fd).st_size > 4 << 20:
                return 'large ' + digest(os.pread(fd, 1 << 20, 0))
            return digest(os.pread(fd, 4 << 20, 0))
        finally:
            os.close(fd)
    return run


def do_seek():
    at, where, whence = slot(), offset(), rng.choice([0, 1, 2])

    def run():
        # In a directory, a position means what each filesystem wants.
        regular = stat.S_ISREG(os.fstat(handle(at)).st_mode)
        return regular and os.lseek(SLOTS[at], where, whence)
    return run


def do_truncate():
    where, size = path(), offset()
    return lambda: os.truncate(where, size)


def do_ftruncate():
    at, size = slot(), offset()
    return lambda: os.ftruncate(handle(at), size)


def do_fallocate():
    at, mode, where, count = slot(), rng.choice([0, 1, 3, 3]), rng.randrange(1_000_000), length()
    return lambda: call('fallocate', handle(at), mode, ctypes.c_long(where), ctypes.c_long(count))


def do_copy():
    source, target, count, a, b = slot(), slot(), length(), offset(), offset()
    return lambda: os.copy_file_range(handle(source), handle(target), count, a, b)


def do_mmap():
    at, where, data = slot(), rng.randrange(60) * 4096, pattern(rng.choice([8, 4096, 5000]))

    def run():
        fd = handle(at)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size < where + len(data):
            return 'beyond the end'
        with mmap.mmap(fd, len(data), offset=where) as view:
            before = digest(view[:])
            view[:] = data
            view.flush()
        # tmpfs does not see a store into a page that was written before, so its time stays.
        os.seteuid(0)
        os.utime(fd, ns=(written, written))
        return before
    return run


def do_stat():
    where, follow = path(), rng.random() < 0.5
    return lambda: describe(os.stat(where, follow_symlinks=follow))


def do_list():
    where = rng.choice(DIRECTORIES) or b'.'
    return lambda: sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in os.scandir(where))


def do_rename():
    old, new, flags = path(), path(), rng.choice([0, 0, 0, 1, 2, 2, 3])
    return lambda: call('renameat2', AT_FDCWD, old, AT_FDCWD, new, flags)


def do_link():
    old, new = path(), path()
    return lambda: os.link(old, new, follow_symlinks=False)


def do_symlink():
    target, where = path(), path()
    return lambda: os.symlink(target, where)


def do_mkdir():
    where, mode = rng.choice(DIRECTORIES[1:] + [path()]), rng.choice(MODES)
    return lambda: os.mkdir(where, mode)


def do_mknod():
    where, kind, mode = path(), rng.choice([stat.S_IFIFO, stat.S_IFREG, stat.S_IFSOCK, stat.S_IFCHR]), rng.choice(MODES)
    return lambda: os.mknod(where, kind | mode, os.makedev(1, 3) if kind == stat.S_IFCHR else 0)


def do_chmod():
    where, mode = path(), rng.choice(MODES)
    return lambda: os.chmod(where, mode)


def do_chown():
    # With neither, FUSE asks for nothing at all, where others take suid away.
    uid, gid = rng.choice([(-1, 0), (-1, 1000), (0, -1), (1000, -1), (0, 0), (1000, 1001), (1001, 0)])
    where, follow = path(), rng.random() < 0.5
    return lambda: os.chown(where, uid, gid, follow_symlinks=follow)


def do_utime():
    where, times = path(), (rng.randrange(1 << 60), rng.randrange(1 << 60))

    def run():
        os.utime(where, ns=times)
        found = os.stat(where)
        return found.st_atime_ns, found.st_mtime_ns
    return run


def do_access():
    where, mode = path(), rng.choice([os.R_OK, os.W_OK, os.X_OK, os.F_OK])
    return lambda: os.access(where, mode, effective_ids=True)


def do_setxattr():
    where, name, value, flags = path(), rng.choice(XATTRS), pattern(rng.choice([0, 1, 100, 3000])), rng.choice([0, 0, 1, 2])
    return lambda: os.setxattr(where, name, value, flags)


def do_getxattr():
    where, name = path(), rng.choice(XATTRS)
    return lambda: digest(os.getxattr(where, name))


def do_listxattr():
    where = path()
    return lambda: sorted(os.listxattr(where))


def do_removexattr():
    where, name = path(), rng.choice(XATTRS + [b'system.posix_acl_default'])
    return lambda: os.removexattr(where, name)


def do_setacl():
    where, which = path(), rng.choice([b'access', b'default'])
    bits = [rng.randrange(8) for _ in range(5)]
    entries = [(1, bits[0], 0xffffffff), (2, bits[1], 1000), (4, bits[2], 0xffffffff), (16, bits[3], 0xffffffff), (32, bits[4], 0xffffffff)]
    value = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *entry) for entry in entries)
    return lambda: os.setxattr(where, b'system.posix_acl_' + which, value)


def do_getacl():
    where, which = path(), rng.choice([b'access', b'default'])
    return lambda: os.getxattr(where, b'system.posix_acl_' + which).hex()


def do_simple(function):
    def make():
        where = path()
        return lambda: function(where)
    return make


def do_fsync():
    at = slot()
    return lambda: os.fsync(handle(at))


def do_fstat():
    at = slot()
    return lambda: describe(os.fstat(handle(at)))


OPERATIONS = {
    'open': (do_open, 14), 'tmpfile': (do_tmpfile, 1), 'linkslot': (do_link_slot, 1), 'close': (do_close, 3),
    'pwrite': (do_pwrite, 10), 'write': (do_write, 5), 'pread': (do_pread, 8), 'read': (do_read, 3),
    'whole': (do_whole, 5), 'seek': (do_seek, 1), 'truncate': (do_truncate, 3), 'ftruncate': (do_ftruncate, 3),
    'fallocate': (do_fallocate, 3), 'copy': (do_copy, 3), 'mmap': (do_mmap, 3), 'stat': (do_stat, 6),
    'fstat': (do_fstat, 3), 'list': (do_list, 4), 'rename': (do_rename, 6), 'link': (do_link, 3),
    'symlink': (do_symlink, 2), 'mkdir': (do_mkdir, 6), 'mknod': (do_mknod, 2), 'chmod': (do_chmod, 4),
    'chown': (do_chown, 3), 'utime': (do_utime, 2), 'access': (do_access, 2), 'setxattr': (do_setxattr, 3),
    'getxattr': (do_getxattr, 2), 'listxattr': (do_listxattr, 2), 'removexattr': (do_removexattr, 1),
    'setacl': (do_setacl, 2), 'getacl': (do_getacl, 2), 'unlink': (do_simple(os.unlink), 6),
    'rmdir': (do_simple(os.rmdir), 2), 'readlink': (do_simple(os.readlink), 1), 'fsync': (do_fsync, 1),
}


def arguments(run):
    """What a call was made with: everything its closure captured."""
    cells = zip(run.__code__.co_freevars, run.__closure__ or ())
    given = ((name, cell.cell_contents) for name, cell in cells)
    shown = ((name, len(value) if name in ('data', 'value') else value) for name, value in given)
    return ' '.join(f'{name}={value!r}' for name, value in shown if not callable(value))


def attempt(run, user):
    os.setegid(user)
    os.seteuid(user)
    try:
        return f'= {run()}'
    except OSError as error:
        return errno.errorcode.get(error.errno, error.errno)
    finally:
        os.seteuid(0)
        os.setegid(0)


os.chdir(directory)
os.chmod(b'.', 0o777)
names, weights = list(OPERATIONS), [weight for _, weight in OPERATIONS.values()]
for index in range(operations):
    name, user = rng.choices(names, weights)[0], rng.choice(USERS)
    run = OPERATIONS[name][0]()
    said = attempt(run, user)
    if index >= first:
        print(f'{index} {name} {arguments(run)} as {user} {said}')
