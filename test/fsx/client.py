"""Exercises files below a directory against a model in memory; `npm run test:fsx` starts it.

    python3 client.py DIRECTORY --seed S [--operations N] [--seconds T] [--files K] [--limit BYTES]
                      [--without NAME,NAME]

Prints one line of JSON: {"operations", "failure", "digests"}. A failure says what went wrong, at
which operation, and the shortest list of operations found that still goes wrong.

The work is done by children: one that a fault kills (SIGBUS), or that hangs, is a failure like
others. What the child did is known from the seed and from how far it came.
"""
import argparse
import hashlib
import json
import mmap
import os
import signal
import sys
import time
import traceback

from operations import Generator, apply
from subject import Mismatch, Subject, perform

# Between complete comparisons.
CHECK_EVERY = 100
# An operation that takes longer hangs.
HANG_SECONDS = 30
SHRINK_SECONDS = 20


def execute(directory, files, operations, progress, patient=True):
    """Does the operations from the iterator; throws at the first that goes wrong."""
    subjects = [Subject(os.path.join(directory, f"file{i}")) for i in range(files)]
    model = [bytearray() for _ in range(files)]
    number = 0
    for operation in operations(model):
        number += 1
        progress(number)
        perform(subjects, model, operation)
        apply(model, operation)
        subjects[operation[1]].check_size(len(model[operation[1]]))
        if number % CHECK_EVERY == 0 or not patient:
            for subject, data in zip(subjects, model):
                subject.check_all(data)
    for subject, data in zip(subjects, model):
        subject.check_all(data)
        subject.close()
    return [hashlib.sha256(data).hexdigest() for data in model]


class Child:
    """execute() in a process of its own."""

    def __init__(self, directory, files, operations, patient=True):
        self.counter = mmap.mmap(-1, 8)
        self.result, write_end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.result)
            self.run(write_end, directory, files, operations, patient)
        os.close(write_end)

    def run(self, write_end, *work):
        try:
            outcome = {"digests": execute(*work[:3], self.progress, work[3])}
        except (Mismatch, OSError) as error:
            outcome = {"error": str(error)}
        except Exception:
            traceback.print_exc()
            os._exit(1)
        with os.fdopen(write_end, "w") as pipe:
            json.dump(outcome, pipe)
        os._exit(0)

    def progress(self, number):
        self.counter[:] = number.to_bytes(8, "little")

    def number(self):
        return int.from_bytes(self.counter[:], "little")

    def wait(self):
        """How it went: {'digests'} or {'error'}."""
        last, since = 0, time.monotonic()
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid != 0:
                break
            if self.number() != last:
                last, since = self.number(), time.monotonic()
            if time.monotonic() - since > HANG_SECONDS:
                os.kill(self.pid, signal.SIGKILL)
                return {"error": f"no end after {HANG_SECONDS} s"}
            time.sleep(0.005)
        with os.fdopen(self.result) as pipe:
            outcome = pipe.read()
        if os.WIFSIGNALED(status):
            return {"error": signal.Signals(os.WTERMSIG(status)).name}
        if os.WEXITSTATUS(status) != 0:
            sys.exit("the client itself is at fault, see above")
        return json.loads(outcome)


def generated(arguments, most, until=None):
    """The operations of the seed, as many as that, or until that time."""

    def operations(model):
        generator = Generator(arguments.seed, arguments.limit, arguments.without)
        while generator.number < most and (until is None or time.monotonic() < until):
            yield generator.next(model)

    return operations


def listed(arguments, count):
    """The same as a list, without touching a file."""
    model = [bytearray() for _ in range(arguments.files)]
    operations = []
    for operation in generated(arguments, count)(model):
        apply(model, operation)
        operations.append(operation)
    return operations


def shrink(arguments, directory, operations):
    """Leaves operations out, ever smaller pieces, as long as it still goes wrong."""
    until = time.monotonic() + SHRINK_SECONDS
    files = arguments.files

    def fails(candidate):
        child = Child(directory, files, lambda _model: iter(candidate), patient=False)
        return "error" in child.wait()

    if not fails(operations):
        return None
    size = len(operations) // 2
    while size > 0 and time.monotonic() < until:
        at = 0
        while at < len(operations) and time.monotonic() < until:
            shorter = operations[:at] + operations[at + size :]
            if fails(shorter):
                operations = shorter
            else:
                at += size
        size //= 2
    return operations


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--operations", type=int, default=sys.maxsize)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--limit", type=int, default=256 * 1024)
    parser.add_argument("--without", type=lambda names: names.split(","), default=[])
    arguments = parser.parse_args()
    until = None if arguments.seconds is None else time.monotonic() + arguments.seconds
    os.makedirs(arguments.directory, exist_ok=True)

    operations = generated(arguments, arguments.operations, until)
    child = Child(arguments.directory, arguments.files, operations)
    outcome = child.wait()
    report = {"operations": child.number(), "failure": None, "digests": outcome.get("digests")}
    if "error" in outcome:
        done = listed(arguments, child.number())
        scrap = os.path.join(arguments.directory, "shrink")
        os.makedirs(scrap, exist_ok=True)
        report["failure"] = {
            "error": outcome["error"],
            "number": child.number(),
            "operation": done[-1] if done else None,
            "shortest": shrink(arguments, scrap, done),
        }
    print(json.dumps(report))


main()
