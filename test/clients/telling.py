"""What clients of tests have in common: each line they print is an assertion."""
import ctypes
import errno
import json
import os

libc = ctypes.CDLL(None, use_errno=True)


def tell(what, ok, detail=""):
    print(json.dumps([what, bool(ok), str(detail)]), flush=True)


def outcome(body):
    """'done', or the name of the errno."""
    try:
        body()
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]


def expect(what, body, wanted):
    got = outcome(body)
    tell(f"{what}: {wanted}", got == wanted, got)


def possible(operations):
    for what, body in operations:
        expect(what, body, "done")


def checked(result, what):
    """The result of a C function, or its errno as an exception."""
    if result == -1:
        raise OSError(ctypes.get_errno(), what)
    return result


def fallocate(fd, mode, offset, length):
    checked(libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)), "fallocate")


def open_for(path, body, flags=os.O_RDWR):
    fd = os.open(path, flags, 0o600)
    try:
        return body(fd)
    finally:
        os.close(fd)
