// What many resources cost one daemon: `npm run bench:many -- [COUNT]`, see docs/performance.md.
// The figures go to stdout, progress to stderr. Nothing stays behind.
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Many, pssKib, timed } from '../test/helper/many.ts';
import { loadNow, readMachine } from './machine.ts';
import { BenchError } from './process.ts';

const ROUNDS = 5;
const AT_ONCE = 8;
/** Until what a start leaves to be tidied up is done, and for how long is looked then. */
const SETTLE_MS = 30_000;
const IDLE_MS = 30_000;

function progress(text: string): void {
  process.stderr.write(`bench: ${text}\n`);
}

function say(what: string, value: string): void {
  process.stdout.write(`${what.padEnd(58)} ${value}\n`);
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

const range = (values: readonly number[], unit: string) =>
  `${median(values).toFixed(0)} (${Math.min(...values).toFixed(0)} to ` +
  `${Math.max(...values).toFixed(0)}) ${unit}`;

/** Time on a processor of all threads until now, in milliseconds. */
function cpuMs(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`);
  const times = threads.map((thread) => {
    const [ns] = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'latin1').split(' ');
    return Number(ns) / 1e6;
  });
  return times.reduce((sum, one) => sum + one, 0);
}

async function idlePercent(pids: readonly number[]): Promise<readonly number[]> {
  const before = pids.map(cpuMs);
  await sleep(IDLE_MS);
  return pids.map((pid, i) => ((cpuMs(pid) - (before[i] ?? 0)) / IDLE_MS) * 100);
}

/** As an operator does it: the time of hastctl is in it. */
async function measureRoles(many: Many): Promise<void> {
  const { a, names } = many;
  const eight = names.slice(0, AT_ONCE);
  const times = new Map<string, number[]>();
  const measure = async (what: string, role: string, of: readonly string[]) => {
    await many.ready();
    const ms = await timed(() => a.must('role', role, ...of));
    times.set(what, [...(times.get(what) ?? []), ms]);
  };
  for (let i = 0; i < ROUNDS; i += 1) {
    await measure('one takes the role primary', 'primary', eight.slice(0, 1));
    await measure('one gives it up', 'init', eight.slice(0, 1));
    await measure(`${AT_ONCE} take the role primary`, 'primary', eight);
    await measure(`${AT_ONCE} give it up`, 'init', eight);
  }
  for (const [what, ms] of times) say(what, range(ms, 'ms'));
  const [one = [], , all = []] = times.values();
  say(`${AT_ONCE} by one`, (median(all) / median(one)).toFixed(2));
}

async function measureIdle(many: Many, what: string): Promise<void> {
  progress(`idle: ${(SETTLE_MS + IDLE_MS) / 1000} s`);
  await sleep(SETTLE_MS);
  const workers = await many.workers(many.a);
  const [supervisor = 0, ...rest] = await idlePercent([
    many.a.pid,
    ...workers.map(({ pid }) => pid),
  ]);
  const mean = rest.reduce((sum, one) => sum + one, 0) / rest.length;
  say(`${what}: processor time of a worker`, `${mean.toFixed(3)} % of one`);
  say(`${what}: processor time of the supervisor`, `${supervisor.toFixed(3)} % of one`);
  const pss = workers.map(({ pid }) => pssKib(pid) / 1024);
  say(`${what}: memory of a worker (PSS)`, range(pss, 'MiB'));
  say(`${what}: memory of the supervisor (PSS)`, `${(pssKib(many.a.pid) / 1024).toFixed(0)} MiB`);
}

async function measureAlone(count: number): Promise<void> {
  progress(`${count} resources without a peer`);
  const many = await Many.make(count, { peer: false });
  try {
    await measureRoles(many);
    say(
      `${count} take the role primary`,
      range([await many.take(many.a, 'primary', many.names)], 'ms'),
    );
    say(`status of ${count}`, range([await timed(() => many.status(many.a))], 'ms'));
    await measureIdle(many, `${count} alone, idle`);
    say(`end of ${count}`, range([await many.stop()], 'ms'));
    say('start', range([await many.start()], 'ms'));
  } finally {
    await many.close();
  }
}

async function measurePairs(): Promise<void> {
  progress(`${AT_ONCE} resources with a peer on this machine`);
  const many = await Many.make(AT_ONCE, { peer: true });
  try {
    await many.take(many.b, 'secondary', many.names);
    const ms = await timed(async () => {
      await many.take(many.a, 'primary', many.names);
      await many.inSync(AT_ONCE);
    });
    say(`${AT_ONCE} pairs are in sync`, range([ms], 'ms'));
    await measureIdle(many, `${AT_ONCE} pairs, idle`);
  } finally {
    await many.close();
  }
}

const count = Number(process.argv[2] ?? 50);
if (!Number.isInteger(count) || count < AT_ONCE) {
  throw new BenchError(`give a number of resources from ${AT_ONCE} up`);
}
const machine = await readMachine('/tmp');
say('machine', `${machine.cpu}, ${machine.cores} cores, kernel ${machine.kernel}`);
say('commit, date, load', `${machine.commit}, ${machine.date}, ${loadNow()}`);
await measureAlone(count);
await measurePairs();
say('load at the end', loadNow());
