import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ACCIDENTS } from '../../helper/accidents.ts';
import { MODES } from '../../helper/pair.ts';
import { complaintIn } from '../../helper/scene.ts';
import { ACCIDENTS_EACH, planOf } from '../../helper/sim-real.ts';

const scene = suite('scene');

scene('a log with nothing but what accidents explain is no finding', () => {
  const log = [
    '[WARNING] [data] (primary) Disconnected from the peer: the peer is silent.',
    '[ERROR] [data] (primary) Worker crashed (signal SIGKILL), restarting at once.',
    '[ERROR] [data] (primary) Worker crashed (exit code unknown), restarting at once.',
  ].join('\n');
  assert.is(complaintIn(log, false), undefined);
});

scene('an assertion and a signal that nobody sent are findings', () => {
  const lines = [
    'src-native/engine/slot.cc:7: settle: assertion failed: slot.held',
    '[ERROR] [data] (secondary) Worker crashed (signal SIGABRT), waiting for the primary.',
    '[ERROR] [data] (primary) Worker crashed (exit code 75: out of memory), restarting at once.',
  ];
  for (const line of lines) assert.is(complaintIn(`before\n${line}\nafter`, true), line);
});

scene('split-brain is a finding only where nothing may have diverged', () => {
  const line = '[ERROR] [data] (primary) The peer refused: Split-brain condition!';
  assert.is(complaintIn(line, true), undefined);
  assert.is(complaintIn(line, false), line);
});

scene('a seed is one plan, and seeds in a row have every accident equally often', () => {
  const count = ACCIDENTS.length;
  const plans = Array.from({ length: count }, (_, seed) => planOf(seed));
  assert.equal(planOf(3), plans[3]);
  const names = plans.flatMap(({ accidents }) => accidents.map(([name]) => name));
  for (const [name] of ACCIDENTS) {
    assert.is(names.filter((one) => one === name).length, ACCIDENTS_EACH, name);
  }
  assert.equal([0, 1, 2].map((seed) => planOf(seed).mode).sort(), [...MODES].sort());
});

scene.run();
