/** What the client processes do on the mount: Python, in the mount's root directory. */

const COMMON = `
import ctypes, errno, fcntl, hashlib, mmap, os, random, stat, time
def pattern(length, seed):
    return random.Random(seed).randbytes(length)
def put(path, data, offset=0):
    with open(path, "r+b" if os.path.exists(path) else "w+b", buffering=0) as file:
        file.seek(offset)
        assert file.write(data) == len(data)
def get(path):
    with open(path, "rb", buffering=0) as file:
        parts = []
        while part := file.read(1 << 20):
            parts.append(part)
        return b"".join(parts)
def refused(name, work):
    try:
        work()
    except OSError as error:
        assert errno.errorcode[error.errno] == name, error
    else:
        raise AssertionError(f"no {name}")
libc = ctypes.CDLL(None, use_errno=True)
def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")
`

const script = (code: string) => `${COMMON}${code}`

/** Name of a check → the operations that it makes, which clean up after themselves. */
export const OPERATIONS: Readonly<Record<string, string>> = {
  'create, write, read, append, overwrite with checksums': script(`
data = pattern(3 * 1024 * 1024 + 17, 1)
put("a", data)
assert get("a") == data
with open("a", "ab", buffering=0) as file:
    file.write(b"tail")
assert get("a") == data + b"tail"
put("a", b"middle", 1000003)
whole = bytearray(data + b"tail")
whole[1000003:1000009] = b"middle"
assert get("a") == bytes(whole)
# Past the end: the gap reads as zeros.
put("a", b"far", 5 * 1024 * 1024)
assert get("a")[len(whole):5 * 1024 * 1024] == bytes(5 * 1024 * 1024 - len(whole))
os.unlink("a")`),
  'a large file, written in 1 MiB pieces': script(`
digest = hashlib.sha256()
with open("large", "wb", buffering=0) as file:
    for seed in range(48):
        piece = pattern(1 << 20, seed)
        digest.update(piece)
        assert file.write(piece) == len(piece)
assert hashlib.sha256(get("large")).digest() == digest.digest()
os.unlink("large")`),
  'create, rename, link, symlink, mkdir, rmdir, unlink': script(`
put("a", b"one")
os.rename("a", "b")
refused("ENOENT", lambda: os.stat("a"))
os.link("b", "c")
assert os.stat("b").st_nlink == 2 and os.stat("b").st_ino == os.stat("c").st_ino
os.symlink("b", "s")
assert os.readlink("s") == "b" and get("s") == b"one"
os.mkdir("d")
os.rename("c", "d/c")
refused("ENOTEMPTY", lambda: os.rmdir("d"))
assert get("d/c") == b"one"
with open("b", "rb") as held:
    os.unlink("b")
    os.unlink("d/c")
    assert held.read() == b"one"
os.rmdir("d")
os.unlink("s")
os.mknod("f", stat.S_IFIFO | 0o600)
assert stat.S_ISFIFO(os.stat("f").st_mode)
os.unlink("f")
assert os.listdir(".") == []`),
  'truncate, fallocate, punch and lseek': script(`
data = pattern(1 << 20, 2)
put("a", data)
os.truncate("a", 300001)
assert get("a") == data[:300001]
os.truncate("a", 400000)
assert get("a") == data[:300001] + bytes(400000 - 300001)
fd = os.open("a", os.O_RDWR)
fallocate(fd, 0, 0, 2 << 20)
assert os.fstat(fd).st_size == 2 << 20
fallocate(fd, 3, 4096, 8192)   # punch a hole, keep the size
assert os.pread(fd, 8192, 4096) == bytes(8192)
assert os.pread(fd, 4096, 0) == data[:4096]
assert os.lseek(fd, 0, os.SEEK_HOLE) == 4096
assert os.lseek(fd, 4096, os.SEEK_DATA) == 12288
os.close(fd)
os.unlink("a")`),
  'shared mappings are coherent with read and write': script(`
put("a", bytes(1 << 20))
fd = os.open("a", os.O_RDWR)
m = mmap.mmap(fd, 1 << 20)
m[5000:5005] = b"hello"
m.flush()
assert os.pread(fd, 5, 5000) == b"hello"
os.pwrite(fd, b"world", 9000)
assert m[9000:9005] == b"world"
m.close()
os.close(fd)
assert get("a")[5000:5005] == b"hello"
os.unlink("a")`),
  'extended attributes, modes, owners and times': script(`
put("a", b"x")
os.setxattr("a", "user.colour", b"green")
os.setxattr("a", "user.large", pattern(3000, 3))
assert os.getxattr("a", "user.colour") == b"green"
assert sorted(os.listxattr("a")) == ["user.colour", "user.large"]
os.removexattr("a", "user.colour")
refused("ENODATA", lambda: os.getxattr("a", "user.colour"))
os.chmod("a", 0o4711)
os.chown("a", 12, 34)
os.chmod("a", 0o640)
os.utime("a", ns=(1_000_000_007, 2_000_000_009))
found = os.stat("a")
assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o640, 12, 34)
assert (found.st_atime_ns, found.st_mtime_ns) == (1_000_000_007, 2_000_000_009)
os.unlink("a")`),
  'the filesystem fills up and is empty again': script(`
free = os.statvfs(".").f_bavail
sizes = []
def fill():
    with open("full", "wb", buffering=0) as file:
        while True:
            sizes.append(file.write(bytes(8 << 20)))
refused("ENOSPC", fill)
assert sum(sizes) > 0.8 * free * 4096, (sum(sizes), free * 4096)
os.unlink("full")
# The kernel lets go of the file in its own time.
for attempt in range(100):
    if os.statvfs(".").f_bavail >= free - 2048:
        break
    time.sleep(0.1)
else:
    raise AssertionError(f"{free} blocks were free, now {os.statvfs('.').f_bavail}")`),
}

/** Leaves files and directories behind, of which verifyScript knows everything. */
export const writeScript = script(`
os.makedirs("keep/deep/er", exist_ok=True)
for seed in range(40):
    put(f"keep/{seed}", pattern(seed * 7919 % 200000, seed))
put("keep/deep/large", pattern(12 << 20, 99))
for seed in range(0, 40, 5):
    if os.path.exists(f"keep/{seed}"):
        os.rename(f"keep/{seed}", f"keep/deep/er/{seed}")
os.setxattr("keep/1", "user.note", b"kept")
if not os.path.exists("keep/linked"):
    os.link("keep/2", "keep/linked")
# Not one fsync: every operation that was acknowledged is durable.
`)

export const verifyScript = script(`
for seed in range(40):
    path = f"keep/deep/er/{seed}" if seed % 5 == 0 else f"keep/{seed}"
    assert get(path) == pattern(seed * 7919 % 200000, seed), path
assert get("keep/deep/large") == pattern(12 << 20, 99)
assert os.getxattr("keep/1", "user.note") == b"kept"
assert os.stat("keep/2").st_nlink == 2 and get("keep/linked") == get("keep/2")
`)
