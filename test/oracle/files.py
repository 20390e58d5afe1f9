"""Does the steps of steps.ts to real files below sys.argv[2]; each answers with one line.

What touches a mapping is done by a child, for it may die of SIGBUS; a mapping is shared with it.
"""
import ctypes, hashlib, signal

# Who started us ends us.
signal.signal(signal.SIGINT, signal.SIG_IGN)
root = sys.argv[2]
# With a write-back cache: what a write has done is known when it was written back.
sync = "sync" in sys.argv[3:]
libc = ctypes.CDLL(None, use_errno=True)
handles, maps = {}, {}
MODES = {"allocate": 0, "keep": 1, "punch": 3, "zero": 0x10, "zero-keep": 0x11}


def payload(number, length):
    unit = hashlib.md5(str(number).encode()).digest() + b"|"
    return (unit * (length // len(unit) + 1))[:length]


def digest(data):
    return f"ok {len(data)}:{hashlib.md5(data).hexdigest()}"


def path(name):
    return os.path.join(root, name)


def touch(run):
    """What a child says that runs this, or the signal that kills it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = run()
        except OSError as error:
            said = errno.errorcode.get(error.errno, str(error.errno))
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else said


def do_open(handle, name):
    fd = os.open(path(name), os.O_RDWR | os.O_CREAT, 0o600)
    let_go(handle)
    handles[handle] = fd
    return f"ok {os.fstat(fd).st_ino}"


def do_close(handle):
    os.close(handles.pop(handle))
    return "ok"


def let_go(handle):
    """A dead one may say EIO, and is closed all the same."""
    if handle in handles:
        try:
            do_close(handle)
        except OSError:
            pass


def do_size(handle):
    return f"ok {os.fstat(handles[handle]).st_size}"


def do_sync(handle):
    os.fsync(handles[handle])
    return "ok"


def do_read(handle, offset, length):
    return digest(os.pread(handles[handle], length, offset))


def do_write(handle, offset, length, number):
    count = os.pwrite(handles[handle], payload(number, length), offset)
    if sync:
        os.fsync(handles[handle])
    return f"ok {count}"


def do_reshape(name, handle, offset, length):
    if libc.fallocate(handles[handle], MODES[name], ctypes.c_int64(offset), ctypes.c_int64(length)):
        raise OSError(ctypes.get_errno(), name)
    return "ok"


def do_resize(handle, size):
    os.ftruncate(handles[handle], size)
    return "ok"


def do_copy(handle, offset, to, onto, length):
    return f"ok {os.copy_file_range(handles[handle], handles[to], length, offset, onto)}"


def do_map(index, handle, length):
    fresh = mmap.mmap(handles[handle], length)
    do_unmap(index)
    maps[index] = fresh
    return "ok"


def do_unmap(index):
    if index in maps:
        maps.pop(index).close()
    return "ok"


def do_load(index, offset, length):
    return touch(lambda: digest(maps[index][offset : offset + length]))


def do_store(index, offset, length, number):
    def store():
        maps[index][offset : offset + length] = payload(number, length)
        maps[index].flush()
        return "ok"

    return touch(store)


def do_resize_path(name, size):
    os.truncate(path(name), size)
    return "ok"


def do_size_path(name):
    return f"ok {os.stat(path(name)).st_size}"


def do_unlink(name):
    os.unlink(path(name))
    return "ok"


def do_rename(name, onto):
    os.rename(path(name), path(onto))
    return "ok"


def do_release():
    for handle in list(handles):
        let_go(handle)
    for index in list(maps):
        do_unmap(index)
    return "ok"


def peek_handle(handle, offset, length):
    return os.pread(handles[handle], length, offset)


def peek_name(name, offset, length):
    fd = os.open(path(name), os.O_RDONLY)
    try:
        return os.pread(fd, length, offset)
    finally:
        os.close(fd)


def peek_map(index, offset, length):
    return maps[index][offset : offset + length]
