// The model can fail: each kind of finding is one here.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Registers, type Write } from '../../helper/registers.ts';

const registers = suite('registers');

/** A model of one block with a write that is acknowledged. */
function written(): { model: Registers; old: Write } {
  const model = new Registers(1);
  const old = model.begin(0, 1);
  model.acknowledge(old);
  return { model, old };
}

function see(model: Registers, id: number): void {
  model.read(0, id, model.now());
}

const against = /against/;

registers('gives what was written last', () => {
  const { model, old } = written();
  see(model, old.id);
  const next = model.begin(0, 1);
  model.acknowledge(next);
  see(model, next.id);
});

registers('finds a lost acknowledgement', () => {
  const { model } = written();
  assert.throws(() => see(model, 0), against);
});

registers('finds an older write in the place of a newer one', () => {
  const { model, old } = written();
  model.acknowledge(model.begin(0, 1));
  assert.throws(() => see(model, old.id), against);
});

registers('lets an unanswered write happen or not', () => {
  for (const happened of [true, false]) {
    const { model, old } = written();
    const lost = model.begin(0, 1);
    model.endOpen();
    see(model, happened ? lost.id : old.id);
  }
});

registers('finds an unanswered write that was seen and went away', () => {
  const { model, old } = written();
  const lost = model.begin(0, 1);
  model.endOpen();
  see(model, lost.id);
  assert.throws(() => see(model, old.id), against);
});

registers('finds an unanswered write that comes when its server is long gone', () => {
  const { model, old } = written();
  const lost = model.begin(0, 1);
  model.endOpen();
  see(model, old.id);
  assert.throws(() => see(model, lost.id), against);
});

registers('lets a write under way be seen or not, but not come and go', () => {
  const { model, old } = written();
  const open = model.begin(0, 1);
  see(model, old.id);
  see(model, open.id);
  assert.throws(() => see(model, old.id), against);
});

registers('takes two writes at once in either order, but in one order', () => {
  const { model } = written();
  const [one, two] = [model.begin(0, 1), model.begin(0, 1)];
  model.acknowledge(two);
  model.acknowledge(one);
  see(model, two.id);
  assert.throws(() => see(model, one.id), against);
});

registers('finds bytes that nobody wrote', () => {
  const { model } = written();
  assert.throws(() => see(model, 77), /may not be there/);
});

registers('knows zeroes, though they are all alike', () => {
  const { model } = written();
  model.acknowledge(model.begin(0, 1, true));
  see(model, 0);
  const next = model.begin(0, 1);
  model.acknowledge(next);
  assert.throws(() => see(model, 0), against);
});

registers('does not take a write for one of zeroes', () => {
  const { model } = written();
  const zeroes = model.begin(0, 1, true);
  model.acknowledge(zeroes);
  assert.throws(() => see(model, zeroes.id), /may not be there/);
});

registers('promises only what was flushed when another copy counts', () => {
  const { model, old } = written();
  model.flushed(model.now());
  const next = model.begin(0, 1);
  model.acknowledge(next);
  see(model, next.id);
  model.forgetUndurable();
  see(model, old.id);
});

registers('finds a flushed write that is gone, even when another copy counts', () => {
  const { model, old } = written();
  const next = model.begin(0, 1);
  model.acknowledge(next);
  model.flushed(model.now());
  model.forgetUndurable();
  assert.throws(() => see(model, old.id), against);
});

registers('a fork owes what was acknowledged before, not what came later', () => {
  const { model, old } = written();
  const fork = model.fork();
  const later = model.begin(0, 1);
  model.acknowledge(later);
  fork.meanwhile(model);
  see(fork, old.id);
  assert.throws(() => see(fork, 0), against);
  see(model, later.id);
  assert.throws(() => see(model, old.id), against);
});

registers('a fork may have what was under way, and keeps it once it was seen', () => {
  const { model, old } = written();
  const open = model.begin(0, 1);
  const fork = model.fork();
  const later = model.begin(0, 1);
  fork.meanwhile(model);
  see(fork, later.id);
  for (const { id } of [old, open]) assert.throws(() => see(fork, id), against);
});

registers('forgets what cannot come again', () => {
  const { model, old } = written();
  const lost = model.begin(0, 1);
  model.endOpen();
  see(model, old.id);
  model.settle();
  see(model, old.id);
  assert.throws(() => see(model, lost.id), /may not be there/);
  assert.throws(() => see(model, 0), /may not be there/);
});

registers.run();
