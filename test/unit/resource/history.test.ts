import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { WorkerStatus } from '../../../src/control/protocol.ts';
import { HISTORY_LIMITS, History } from '../../../src/resource/history.ts';
import type { WorkerEnd } from '../../../src/resource/role.ts';
import { workerOf } from '../../helper/fake-daemon.ts';

const history = suite('history of a resource');

const GONE: WorkerEnd = {
  exit: 75,
  signal: null,
  code: 'PEER_GONE',
  text: 'the primary closed the connection',
  refused: false,
};
const KILLED: WorkerEnd = { exit: null, signal: 'SIGKILL', code: '', text: '', refused: false };

/** A clock that goes a second further with every look, and a worker that says `stats`. */
function made(stats: Partial<WorkerStatus> | null = null) {
  let seconds = 0;
  const subject = new History(
    () => Promise.resolve(stats === null ? null : workerOf(stats)),
    () => new Date(1000 * seconds++),
  );
  const told = () =>
    subject.entries().map(({ event, detail, times }) => ({ event, detail, times }));
  return { subject, told };
}

/** Until all that was asked of the worker is answered. */
const answered = () => new Promise((resolve) => setImmediate(resolve));

history('a role has who asked for it, or why it was fallen to', () => {
  const { subject, told } = made();
  subject.asked('primary', 'hastctl (root, pid 7)');
  subject.tookRole('init', 'primary', undefined);
  subject.tookRole('primary', 'init', KILLED);
  subject.roleFailed('primary', 'hastctl (root, pid 8)', { ...GONE, text: 'no disk' });
  assert.equal(
    told().map(({ detail }) => detail),
    [
      { from: 'init', to: 'primary', by: 'hastctl (root, pid 7)' },
      { from: 'primary', to: 'init', text: 'the worker was ended by SIGKILL' },
      { role: 'primary', by: 'hastctl (root, pid 8)', code: 'PEER_GONE', text: 'no disk' },
    ],
  );
});

history('a synchronisation has its amounts, and the time it took', async () => {
  const { subject, told } = made({ syncBytesLeft: 4096, syncBytesDone: 8192 });
  subject.happened('syncstart', 'primary');
  subject.happened('syncintr', 'primary');
  subject.happened('syncdone', 'primary');
  assert.equal(told()[0]?.detail, {}, 'stands at once');
  await answered();
  assert.equal(
    told().map(({ detail }) => detail),
    [{ left: 4096 }, { done: 8192, left: 4096 }, { seconds: 3, done: 8192 }],
  );
});

history('a lost connection has its reason: from the worker, or from its end', async () => {
  const primary = made({ reason: 'Connection reset by peer' });
  primary.subject.happened('disconnect', 'primary');
  await answered();
  assert.equal(primary.told()[0]?.detail, { text: 'Connection reset by peer' });

  const secondary = made();
  secondary.subject.happened('disconnect', 'secondary');
  secondary.subject.ended('secondary', GONE);
  assert.equal(secondary.told(), [{ event: 'disconnect', detail: { text: GONE.text }, times: 1 }]);
});

history('an end in order is none; an accident is', async () => {
  const { subject, told } = made();
  subject.ended('primary', { ...GONE, exit: 0, text: '' });
  assert.equal(told(), []);
  subject.ended('primary', KILLED);
  subject.happened('disconnect', 'primary'); // its worker does not answer any more
  await answered();
  assert.equal(told()[0], { event: 'worker-end', detail: { signal: 'SIGKILL' }, times: 1 });
});

history('what repeats is one entry, as long as the role stays', () => {
  const { subject, told } = made();
  for (let i = 0; i < 10; i += 1) {
    subject.happened('split-brain', 'secondary');
    subject.ended('secondary', { ...GONE, exit: 78, text: 'Split-brain condition!' });
  }
  assert.equal(
    told().map(({ event, times }) => [event, times]),
    [
      ['split-brain', 10],
      ['worker-end', 10],
    ],
  );
  const [first] = subject.entries();
  assert.is(first?.time, new Date(0).toISOString());
  assert.is(first?.last, new Date(18_000).toISOString());
  subject.tookRole('secondary', 'init', undefined);
  subject.happened('split-brain', 'secondary');
  assert.is(told().length, 4);
});

history('is bounded, in entries and in letters', () => {
  const { subject } = made();
  for (let i = 0; i < 100; i += 1) subject.add('role', { from: `${i}`, text: 'x'.repeat(9999) });
  const entries = subject.entries();
  assert.is(entries.length, HISTORY_LIMITS.entries);
  assert.is(entries.at(-1)?.detail.from, '99');
  assert.is(String(entries[0]?.detail.text).length, HISTORY_LIMITS.textChars);
});

history.run();
