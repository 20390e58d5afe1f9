/** One holdfast mount to grow and to look into. */
import { mkdirSync, mkdtempSync } from 'node:fs'
import { join } from 'node:path'
import type { ControlClient } from '../../src/control/client.ts'
import { connectTo, resolveTarget } from '../../src/control/target.ts'
import { run, runProgram, sleep } from '../quickstart/programs.ts'
import { anonymousMemory } from './report.ts'
import { must } from './targets.ts'

/** argv: directory, first number, count. 1000 small files in each directory. */
const MAKE_FILES = `
use strict; use Fcntl; use Time::HiRes qw(time);
my ($root, $first, $count) = @ARGV;
my $text = 'x' x 100;
my $from = time;
for my $i ($first .. $first + $count - 1) {
  my $dir = sprintf '%s/%04d', $root, $i / 1000;
  if ($i % 1000 == 0) { mkdir $dir or die "mkdir: $!\\n" }
  sysopen(my $f, "$dir/$i", O_CREAT|O_EXCL|O_WRONLY, 0644) or die "create: $!\\n";
  syswrite($f, $text) == 100 or die "write: $!\\n";
  close($f) or die "close: $!\\n";
}
printf "%.6f\\n", time() - $from;
`

/** argv: directory, number of files there, how many to look up (spread over all). */
const LOOK_UP = `
use strict; use Time::HiRes qw(time);
my ($root, $count, $lookups) = @ARGV;
my $step = int($count / $lookups) || 1;
my @numbers = map { $_ * $step % $count } 0 .. $lookups - 1;
my @paths = map { sprintf '%s/%04d/%d', $root, $_ / 1000, $_ } @numbers;
my $from = time;
for (@paths) { my @s = stat $_ or die "stat $_: $!\\n" }
printf "%.6f\\n", time() - $from;
`

const LONG_MS = 1_800_000

export class Daemon {
  readonly region: string
  readonly mountpoint: string
  pid = 0
  #control: ControlClient | undefined

  constructor(region: string, mountpoint: string) {
    this.region = region
    this.mountpoint = mountpoint
  }

  /** Formats a region of this size and mounts it. */
  static async make(directory: string, size: number): Promise<Daemon> {
    const place = mkdtempSync(join(directory, 'd-'))
    const daemon = new Daemon(join(place, 'region'), join(place, 'mnt'))
    mkdirSync(daemon.mountpoint)
    const whole = Math.ceil(size / 2 ** 21) * 2 ** 21
    must(await runProgram('mkfs.holdfast', ['--size', String(whole), daemon.region]))
    await daemon.mount()
    return daemon
  }

  /** Milliseconds from the command to its return: the mount answers. */
  async mount(): Promise<number> {
    const outcome = await runProgram('holdfast', ['mount', this.region, this.mountpoint], {
      timeoutMs: LONG_MS,
    })
    must(outcome)
    const status = await (await this.control()).call('status', {})
    this.pid = status.holder?.pid ?? 0
    return outcome.milliseconds
  }

  async unmount(): Promise<number> {
    this.#hangUp()
    const outcome = await runProgram('holdfast', ['umount', this.mountpoint], {
      timeoutMs: LONG_MS,
    })
    return must(outcome).milliseconds
  }

  /** kill -9, and wait until it is gone. */
  async kill(): Promise<void> {
    this.#hangUp()
    process.kill(this.pid, 'SIGKILL')
    must(await run(['tail', `--pid=${this.pid}`, '-s', '0.02', '-f', '/dev/null']))
  }

  async control(): Promise<ControlClient> {
    this.#control ??= await connectTo(resolveTarget(this.mountpoint))
    return this.#control
  }

  /** Makes small files; returns seconds. */
  async makeFiles(first: number, count: number): Promise<number> {
    const command = ['perl', '-e', MAKE_FILES, this.mountpoint, String(first), String(count)]
    return Number(must(await run(command, { timeoutMs: LONG_MS })).stdout)
  }

  /** Looks names up; returns microseconds for one. */
  async lookUp(files: number, lookups: number): Promise<number> {
    const command = ['perl', '-e', LOOK_UP, this.mountpoint, String(files), String(lookups)]
    return (Number(must(await run(command, { timeoutMs: LONG_MS })).stdout) / lookups) * 1e6
  }

  /** A checkpoint, and the most memory the daemon had during it. */
  async checkpoint(): Promise<{ bytes: number; milliseconds: number; peak: number }> {
    let peak = this.memory()
    let done = false
    const call = (await this.control()).call('checkpoint', {}).finally(() => {
      done = true
    })
    while (!done) {
      peak = Math.max(peak, this.memory())
      await Promise.race([sleep(5), call.catch(() => undefined)])
    }
    const { bytes, milliseconds } = await call
    return { bytes, milliseconds, peak }
  }

  /** RssAnon, bytes. */
  memory(): number {
    return anonymousMemory(this.pid)
  }

  #hangUp(): void {
    this.#control?.close()
    this.#control = undefined
  }
}
