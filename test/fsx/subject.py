"""A real file under test: what is done to it, compared with what its model says."""
import ctypes
import errno
import mmap
import os

from operations import BLOCK, FALLOCATE_MODES, copy_count, payload

libc = ctypes.CDLL(None, use_errno=True)


class Mismatch(Exception):
    """The file and its model disagree."""


def compare(what, got, expected, offset=0):
    """Throws a sentence with the place when the bytes differ."""
    if got == expected:
        return
    if len(got) != len(expected):
        raise Mismatch(f"{what} at {offset}: {len(got)} bytes, not {len(expected)}")
    at = next(i for i in range(len(got)) if got[i] != expected[i])
    count = sum(1 for a, b in zip(got, expected) if a != b)
    raise Mismatch(
        f"{what}: {count} bytes from {offset + at} differ, "
        f"{bytes(got[at : at + 16]).hex()} instead of {bytes(expected[at : at + 16]).hex()}"
    )


def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Subject:
    """One file, its descriptors, and a mapping that lives on from operation to operation."""

    def __init__(self, path):
        self.path = path
        self.map = None
        self.open(os.O_CREAT | os.O_TRUNC)

    def open(self, flags=0):
        self.fd = os.open(self.path, os.O_RDWR | flags, 0o600)
        self.end_fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        self.direct_fd = None

    def close(self):
        self.unmap()
        for fd in (self.fd, self.end_fd, self.direct_fd):
            if fd is not None:
                os.close(fd)

    def direct(self):
        if self.direct_fd is None:
            self.direct_fd = os.open(self.path, os.O_RDWR | os.O_DIRECT)
        return self.direct_fd

    def unmap(self):
        if self.map is not None:
            self.map.close()
        self.map = None

    def mapped(self, end):
        """A shared mapping that reaches that far."""
        if self.map is None or len(self.map) < end:
            self.unmap()
            self.map = mmap.mmap(self.fd, os.fstat(self.fd).st_size)
        return self.map

    def check_size(self, expected):
        size = os.fstat(self.fd).st_size
        if size != expected:
            raise Mismatch(f"size: {size}, not {expected}")

    def check_all(self, expected):
        self.check_size(len(expected))
        compare("all of the file", os.pread(self.fd, len(expected) + 1, 0), expected)


def write_all(fd, data, offset):
    done = 0
    while done < len(data):
        done += os.pwrite(fd, memoryview(data)[done:], offset + done)


def perform(subjects, model, operation):
    """Does the operation to the real file. The model is as it was before it."""
    name, file, *arguments = operation
    run = ACTIONS.get(name)
    if run is None:
        fallocate(subjects[file].fd, FALLOCATE_MODES[name], *arguments)
    elif name == "copy":
        run(subjects, model, file, *arguments)
    else:
        run(subjects[file], model[file], *arguments)


def write(subject, _data, offset, length, seed):
    write_all(subject.fd, payload(seed, length), offset)


def append(subject, _data, length, seed):
    os.write(subject.end_fd, payload(seed, length))


def read(subject, data, offset, length):
    compare("read", os.pread(subject.fd, length, offset), data[offset : offset + length], offset)


def direct_write(subject, _data, offset, length, seed):
    with mmap.mmap(-1, length) as aligned:
        aligned[:] = payload(seed, length)
        if os.pwrite(subject.direct(), aligned, offset) != length:
            raise Mismatch(f"direct write at {offset}: short")


def direct_read(subject, data, offset, length):
    with mmap.mmap(-1, length) as aligned:
        count = os.preadv(subject.direct(), [aligned], offset)
        compare("direct read", aligned[:count], data[offset : offset + length], offset)


def map_write(subject, data, offset, length, seed):
    end = min(offset + length, len(data))
    if end > offset:
        subject.mapped(end)[offset:end] = payload(seed, end - offset)


def map_read(subject, data, offset, length):
    end = min(offset + length, len(data))
    if end > offset:
        compare("mapping", subject.mapped(end)[offset:end], data[offset:end], offset)


def map_beyond(subject, data, seed):
    """
    Stores after the end of the file, into its last page. Once the page was written back nobody may
    see that; before, the kernel's page cache shows it when the file grows, on tmpfs and FUSE alike.
    """
    size = len(data)
    page_end = -(-size // BLOCK) * BLOCK
    end = 0 if subject.map is None else min(len(subject.map), page_end)
    if end > size:
        subject.map[size:end] = payload(seed, end - size)
        subject.map.flush()


def truncate(subject, _data, size):
    os.ftruncate(subject.fd, size)


def copy(subjects, model, file, offset, to, onto, length):
    left = copy_count(model, file, offset, to, onto, length)
    while left > 0:
        count = os.copy_file_range(subjects[file].fd, subjects[to].fd, left, offset, onto)
        if count == 0:
            raise Mismatch(f"copy_file_range: 0 bytes with {left} left")
        left, offset, onto = left - count, offset + count, onto + count


def seek(subject, data, offset):
    """What is called a hole must be one, whatever a mapping has stored there."""
    try:
        start = os.lseek(subject.fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        start = max(offset, len(data))
    if start < offset:
        raise Mismatch(f"SEEK_DATA from {offset}: {start}")
    compare("hole", data[offset:start], bytes(max(0, min(start, len(data)) - offset)), offset)
    if offset < len(data):
        hole = os.lseek(subject.fd, offset, os.SEEK_HOLE)
        if not offset <= hole <= len(data):
            raise Mismatch(f"SEEK_HOLE from {offset}: {hole}, size {len(data)}")


def unmap(subject, _data):
    subject.unmap()


def reopen(subject, _data):
    subject.close()
    subject.open()


def sync(subject, _data):
    os.fsync(subject.fd)


def drop(subject, _data):
    """The page cache forgets the file."""
    os.fsync(subject.fd)
    os.posix_fadvise(subject.fd, 0, 0, os.POSIX_FADV_DONTNEED)


def replace(subject, _data):
    """Another file takes the name; the old one goes with its last descriptor."""
    fresh = f"{subject.path}.new"
    os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT, 0o600))
    os.rename(fresh, subject.path)
    subject.close()
    subject.open()


ACTIONS = {
    "write": write, "append": append, "read": read,
    "direct-write": direct_write, "direct-read": direct_read,
    "map-write": map_write, "map-read": map_read, "map-beyond": map_beyond, "unmap": unmap,
    "truncate": truncate, "copy": copy, "seek": seek,
    "reopen": reopen, "sync": sync, "drop": drop, "replace": replace,
}  # fmt: skip
