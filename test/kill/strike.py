"""Ends a process at a moment, and with it, if told, the power of the disk its region lies on.

    strike.py [--disk DIRECTORY] [--scatter SEED] [--region FILE] [--delay SECONDS] PID
    strike.py … [--watch] [--victim PID] -- COMMAND…

The second form starts the command, with --watch waits until it changes a superblock of the region,
prints {"killed", "struck", "status", "output"}: whether the blow met it alive, and fell at all. Of a
command that is faster than the delay neither is true. --victim is struck instead of the command. With --disk the ext4 filesystem there is
shut down as a power failure does it: whatever has not been written back is gone, and nothing is
from now on. --scatter has random pieces of the region written back before, as a host may.
"""
import argparse
import ctypes
import fcntl
import json
import os
import random
import signal
import struct
import subprocess
import time

FS_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
SYNC_FILE_RANGE_WRITE_AND_WAIT = 7
PIECE = 64 * 1024
BLOCK = 4096
POLL_SECONDS = 0.0002
COMMAND_SECONDS = 60
libc = ctypes.CDLL(None, use_errno=True)


def scatter(region, seed):
    """Any part of what is dirty may already have been written back when the power fails."""
    chooser = random.Random(seed)
    share = chooser.choice([0, 0.1, 0.5, 0.9])
    fd = os.open(region, os.O_RDWR)
    for offset in range(0, os.fstat(fd).st_size, PIECE):
        if chooser.random() < share:
            at = offset + chooser.randrange(PIECE // BLOCK) * BLOCK
            length = chooser.randint(1, PIECE // BLOCK) * BLOCK
            libc.sync_file_range(fd, ctypes.c_long(at), ctypes.c_long(length), SYNC_FILE_RANGE_WRITE_AND_WAIT)
    os.close(fd)


def cut(directory):
    fd = os.open(directory, os.O_RDONLY)
    fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
    os.close(fd)


def started(arguments):
    # The first store into a page that is clean changes the time of the file.
    before = os.stat(arguments.region).st_mtime_ns
    child = subprocess.Popen(arguments.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    until = time.monotonic() + COMMAND_SECONDS
    while arguments.watch and child.poll() is None and os.stat(arguments.region).st_mtime_ns == before:
        if time.monotonic() > until:
            raise TimeoutError(f"no change of {arguments.region}")
        time.sleep(POLL_SECONDS)
    return child


def strike(arguments, pid):
    """False when the process was gone before."""
    time.sleep(arguments.delay)
    alive = running(pid)
    if arguments.scatter is not None:
        scatter(arguments.region, arguments.scatter)
    if arguments.disk:
        cut(arguments.disk)
    if alive:
        os.kill(pid, signal.SIGKILL)
    return alive


def running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--disk")
    parser.add_argument("--scatter", type=int)
    parser.add_argument("--region")
    parser.add_argument("--delay", type=float, default=0)
    parser.add_argument("--watch", action="store_true")
    parser.add_argument("--victim", type=int)
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    if len(arguments.command) == 1:
        killed = strike(arguments, int(arguments.command[0]))
        print(json.dumps({"killed": killed, "struck": True, "status": None, "output": ""}))
        return
    child = started(arguments)
    # Not waited for yet: the number is still the child's.
    struck = arguments.victim is not None or child.poll() is None
    killed = struck and strike(arguments, arguments.victim or child.pid)
    output = child.communicate()[0].decode()
    status = child.returncode
    if arguments.victim is None:
        killed = status == -signal.SIGKILL
    print(json.dumps({"killed": killed, "struck": struck, "status": status, "output": output}))


main()
