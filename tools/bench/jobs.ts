/**
 * What is measured. I/O is fio's, one process, psync (pread/pwrite) or mmap engine; operations on
 * names are loops in Perl, which adds less than a microsecond to each. Every target gets the same.
 */
import { join } from 'node:path'
import { run } from '../quickstart/programs.ts'
import { BenchError, dropCaches, must, touchMemory } from './targets.ts'

export interface Scale {
  /** Sequential file, bytes: one pass. */
  sequential: number
  /** File of the random jobs, bytes. */
  random: number
  /** File of the jobs in cache, bytes. */
  cached: number
  /** Of a timed job, seconds. */
  seconds: number
  /** Warming up before a cached job, seconds. */
  warm: number
  /** Small files. */
  files: number
}

const MIB = 1024 * 1024

export const FULL: Scale = {
  sequential: 512 * MIB,
  random: 256 * MIB,
  cached: 32 * MIB,
  seconds: 1.5,
  warm: 1,
  files: 4000,
}

export const QUICK: Scale = {
  sequential: 128 * MIB,
  random: 64 * MIB,
  cached: 16 * MIB,
  seconds: 0.5,
  warm: 0.5,
  files: 1000,
}

export interface Job {
  name: string
  unit: 'MB/s' | 'op/s'
  /** What it does, for the legend. */
  what: string
  /** Throws BenchError when the target cannot do it. */
  measure(directory: string, scale: Scale): Promise<number>
}

/** Files made once for each target, before the rounds. */
export async function prepare(directory: string, scale: Scale): Promise<void> {
  const fill = { rw: 'write', bs: '1M', fallocate: 'none', end_fsync: 1 }
  await fio(directory, { ...fill, filename: 'sequential', size: scale.sequential })
  await fio(directory, { ...fill, filename: 'random', size: scale.random })
  await fio(directory, { ...fill, filename: 'cached', size: scale.cached })
}

type FioOptions = Record<string, string | number>

interface FioSide {
  bw_bytes: number
  iops: number
  total_ios: number
}

async function fio(
  directory: string,
  options: FioOptions,
): Promise<{ read: FioSide; write: FioSide }> {
  const all = { name: 'job', ioengine: 'psync', directory, thread: 1, ...options }
  const args = Object.entries(all).map(([key, value]) => `--${key}=${value}`)
  const outcome = must(await run(['fio', '--output-format=json', ...args], { timeoutMs: 120_000 }))
  const json = outcome.stdout.slice(outcome.stdout.indexOf('{'))
  const [job] = (JSON.parse(json) as { jobs: { error: number; read: FioSide; write: FioSide }[] })
    .jobs
  if (job === undefined || job.error !== 0) throw new BenchError(`fio: error ${job?.error}`)
  return job
}

function timed(scale: Scale): FioOptions {
  return { time_based: 1, runtime: `${scale.seconds * 1000}ms` }
}

const randomFile = (scale: Scale) => ({ filename: 'random', size: scale.random, bs: '4k' })
const cachedFile = (scale: Scale) => ({
  filename: 'cached',
  size: scale.cached,
  bs: '4k',
  invalidate: 0,
  pre_read: 1,
  ramp_time: `${scale.warm * 1000}ms`,
})

const IO_JOBS: Job[] = [
  {
    name: 'sequential write 1 MiB',
    unit: 'MB/s',
    what: 'a new file, one pass, fsync at the end; free memory was touched just before',
    async measure(directory, scale) {
      must(await run(['rm', '-f', join(directory, 'sequential')]))
      // A virtual machine gives free memory back to its host, and pays for its next first use.
      await touchMemory('/dev/shm', 3 * scale.sequential)
      const grow = { fallocate: 'none', create_on_open: 1, end_fsync: 1 }
      const file = { filename: 'sequential', size: scale.sequential }
      const { write } = await fio(directory, { rw: 'write', bs: '1M', ...grow, ...file })
      return write.bw_bytes / 1e6
    },
  },
  {
    name: 'sequential read 1 MiB',
    unit: 'MB/s',
    what: 'one pass, page cache of the file dropped before (posix_fadvise)',
    async measure(directory, scale) {
      const file = { filename: 'sequential', size: scale.sequential, invalidate: 1 }
      const { read } = await fio(directory, { rw: 'read', bs: '1M', ...file })
      return read.bw_bytes / 1e6
    },
  },
  {
    name: 'random read 4 KiB, direct',
    unit: 'op/s',
    what: 'O_DIRECT: each read reaches the filesystem',
    async measure(directory, scale) {
      const options = { rw: 'randread', direct: 1, ...randomFile(scale), ...timed(scale) }
      return (await fio(directory, options)).read.iops
    },
  },
  {
    name: 'random read 4 KiB, cached',
    unit: 'op/s',
    what: 'as a program does it, after warm-up: from the page cache',
    async measure(directory, scale) {
      const options = { rw: 'randread', ...cachedFile(scale), ...timed(scale) }
      return (await fio(directory, options)).read.iops
    },
  },
  {
    name: 'random write 4 KiB',
    unit: 'op/s',
    what: 'in place, as a program does it, fsync at the end',
    async measure(directory, scale) {
      const place = { ...randomFile(scale), ...timed(scale) }
      const options = { rw: 'randwrite', overwrite: 1, end_fsync: 1, ...place }
      return (await fio(directory, options)).write.iops
    },
  },
  {
    name: 'random write 4 KiB, direct',
    unit: 'op/s',
    what: 'in place, O_DIRECT: each write reaches the filesystem',
    async measure(directory, scale) {
      const place = { ...randomFile(scale), ...timed(scale) }
      const options = { rw: 'randwrite', overwrite: 1, direct: 1, ...place }
      return (await fio(directory, options)).write.iops
    },
  },
  {
    name: 'mmap random read 4 KiB',
    unit: 'op/s',
    what: 'after warm-up: loads from the mapping',
    async measure(directory, scale) {
      const options = { ioengine: 'mmap', rw: 'randread', ...cachedFile(scale), ...timed(scale) }
      return (await fio(directory, options)).read.iops
    },
  },
]

/** argv: phase, directory, number of files. Prints operations per second. */
const NAMES_LOOP = `
use strict; use Fcntl; use Time::HiRes qw(time);
my ($phase, $dir, $count) = @ARGV;
chdir $dir or die "chdir: $!\\n";
my $text = 'x' x 100;
my %phases = (
  create => sub {
    sysopen(my $f, $_[0], O_CREAT|O_EXCL|O_WRONLY, 0644) or die "create: $!\\n";
    syswrite($f, $text) == 100 or die "write: $!\\n";
    close($f) or die "close: $!\\n";
  },
  stat => sub { my @s = stat($_[0]) or die "stat: $!\\n"; },
  open => sub { sysopen(my $f, $_[0], O_RDONLY) or die "open: $!\\n"; close($f); },
  unlink => sub { unlink($_[0]) or die "unlink: $!\\n"; },
);
my $warm = $phase =~ s/-again$//;
my $operation = $phases{$phase};
my @names = map { "file-" . ($_ * 7919 % $count) } 0 .. $count - 1;
if ($warm) { $operation->($_) for @names }
my $from = time;
$operation->($_) for @names;
printf "%.6f\\n", $count / (time() - $from);
`

async function names(phase: string, directory: string, scale: Scale): Promise<number> {
  const command = ['perl', '-e', NAMES_LOOP, phase, join(directory, 'names'), String(scale.files)]
  return Number(must(await run(command, { timeoutMs: 120_000 })).stdout)
}

/** In this order: each finds what the one before has left. */
const NAME_JOBS: Job[] = [
  {
    name: 'create',
    unit: 'op/s',
    what: 'open(O_CREAT|O_EXCL), write 100 bytes, close; all in one directory',
    async measure(directory, scale) {
      must(await run(['mkdir', join(directory, 'names')]))
      return names('create', directory, scale)
    },
  },
  {
    name: 'stat',
    unit: 'op/s',
    what: 'for the second time: the kernel may know the answer',
    measure: (directory, scale) => names('stat-again', directory, scale),
  },
  {
    name: 'stat, uncached',
    unit: 'op/s',
    what: "after dropping the kernel's dentries and inodes (tmpfs keeps its own)",
    async measure(directory, scale) {
      if (!(await dropCaches())) throw new BenchError('dropping caches needs root')
      return names('stat', directory, scale)
    },
  },
  {
    name: 'open + close',
    unit: 'op/s',
    what: 'read-only, for the second time',
    measure: (directory, scale) => names('open-again', directory, scale),
  },
  {
    name: 'unlink',
    unit: 'op/s',
    what: 'and the directory after the last',
    async measure(directory, scale) {
      const rate = await names('unlink', directory, scale)
      must(await run(['rmdir', join(directory, 'names')]))
      return rate
    },
  },
]

export const JOBS: Job[] = [...IO_JOBS, ...NAME_JOBS]
