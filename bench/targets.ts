/** What is measured besides hastd itself: the floor, and another program of the same kind. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { fileEngine, measure, nbdEngine, type Timing } from './fio.ts';
import type { Job } from './jobs.ts';
import { BenchError, cpuMicroseconds, run, Server, tryRun, until } from './process.ts';

export interface Measurement extends Timing {
  /** Microseconds of processor time for each request, one for each serving process. */
  readonly cpu: readonly number[];
}

export interface Target {
  readonly name: string;
  readonly what: string;
  /** False for a job that has no meaning there. */
  readonly fits: (job: Job) => boolean;
  readonly measure: (job: Job, seconds: number) => Promise<Measurement>;
}

/** A place that fio can be pointed at. */
export interface Place {
  readonly path: string;
  readonly offset: number;
}

/** A server that has been started for one measurement. */
export interface Served {
  readonly socket: string;
  readonly name: string;
  /** Whose processor time counts. */
  readonly pids: readonly number[];
  readonly stop: () => Promise<void>;
  /** What the servers said last, for when something went wrong. */
  readonly output: () => string;
}

/** Starts a server, measures it, stops it: no measurement inherits anything from one before. */
export async function measureServed(
  start: () => Promise<Served>,
  job: Job,
  seconds: number,
): Promise<Measurement> {
  const { socket, name, pids, stop, output } = await start();
  try {
    const marks: (readonly number[])[] = [];
    const timing = await measure(job, nbdEngine(socket, name), seconds, () => {
      marks.push(pids.map(cpuMicroseconds));
    });
    const [before = [], after = []] = marks;
    const cpu = pids.map((_, i) => ((after[i] ?? 0) - (before[i] ?? 0)) / timing.requests);
    return { ...timing, cpu };
  } catch (error) {
    if (!(error instanceof BenchError)) throw error;
    throw new BenchError(`${error.message}\n${output()}`);
  } finally {
    await stop();
  }
}

export function rawTarget(name: string, { path, offset }: Place): Target {
  return {
    name,
    what: `fio on ${path} with io_uring and O_DIRECT`,
    fits: () => true,
    measure: async (job, seconds) => ({
      ...(await measure(job, fileEngine(path, offset), seconds, () => {})),
      cpu: [],
    }),
  };
}

/** A program that serves one NBD export on a UNIX socket until it is told to end. */
function serverTarget(
  name: string,
  what: string,
  socket: string,
  command: string,
  args: readonly string[],
): Target {
  const start = async (): Promise<Served> => {
    const server = new Server(command, args, `${socket}.log`);
    await until(`${name} listens`, 10, () => {
      server.expectAlive();
      return existsSync(socket);
    });
    const stop = () => server.stop();
    return { socket, name: 'data', pids: [server.pid], stop, output: () => server.output() };
  };
  return {
    name,
    what,
    fits: () => true,
    measure: (job, seconds) => measureServed(start, job, seconds),
  };
}

export function qemuTarget(directory: string, { path, offset }: Place): Target {
  const socket = join(directory, 'qemu.nbd');
  const served = ['--persistent', '--shared=8', '--export-name=data', `--socket=${socket}`];
  const disk = ['--format=raw', `--offset=${offset}`, '--cache=none', '--aio=native', path];
  const what = `qemu-nbd --cache=none --aio=native on ${path}`;
  return serverTarget('qemu-nbd', what, socket, 'qemu-nbd', [...served, ...disk]);
}

const ROOT = new URL('..', import.meta.url).pathname;

/** Builds one of our small programs; @returns why it is not there, or nothing */
async function compile(source: string, out: string, more: readonly string[]): Promise<string> {
  const args = ['-std=c++20', '-O2', '-D_GNU_SOURCE', join(ROOT, 'bench/native', source)];
  try {
    await run('c++', [...args, ...more, '-o', out], 300);
    return '';
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** Our own gate without an engine behind it where it can be built, else nbdkit's. */
export async function nullTarget(directory: string, bytes: number): Promise<Target> {
  const socket = join(directory, 'null.nbd');
  const program = join(directory, 'nbd_null');
  const library = join(ROOT, 'out/native/libhast_core.a');
  const includes = [`-I${ROOT}src-native`, `-I${ROOT}test/native`];
  const problem = existsSync(library)
    ? await compile('nbd_null.cc', program, [
        ...includes,
        library,
        '-l:liburing.a',
        '-lcrypto',
        '-lz',
      ])
    : `${library} is missing: npm run build:native`;
  if (problem === '') {
    const args = [socket, '--size', String(bytes), '--name', 'data'];
    return serverTarget('null', "hastd's NBD gate without an engine", socket, program, args);
  }
  if ((await tryRun('nbdkit', ['--version'])) !== undefined) {
    const args = ['--foreground', '--unix', socket, 'null', String(bytes)];
    return serverTarget('null', 'nbdkit null', socket, 'nbdkit', args);
  }
  throw new BenchError(`no null export: neither nbdkit nor nbd_null (${problem})`);
}

const EchoAnswer = v.object({
  iops: v.number(),
  requests: v.number(),
  p50: v.number(),
  p99: v.number(),
});

export async function echoTarget(directory: string): Promise<Target> {
  const program = join(directory, 'tcp_echo');
  const problem = await compile('tcp_echo.cc', program, ['-pthread']);
  if (problem !== '') throw new BenchError(problem);
  return {
    name: 'tcp echo',
    what: 'payloads over TCP on loopback, each answered with 64 bytes',
    fits: (job) => job.write,
    measure: async ({ blockBytes, depth }, seconds) => {
      const args = [blockBytes, depth, seconds].map(String);
      const output = await run(program, args, seconds + 30);
      return { ...v.parse(EchoAnswer, JSON.parse(output)), cpu: [] };
    },
  };
}
