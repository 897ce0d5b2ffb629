import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { notesOf } from '../../../src/resource/notes.ts';

const notes = suite('notes of a resource');

const end = (text: string) => ({
  exit: 78,
  signal: null,
  code: 'PEER_SPLIT_BRAIN',
  text,
  refused: false,
});

notes('a split-brain says what it is and which commands come next', () => {
  const told = notesOf(
    'data',
    { phase: 'secondary' },
    null,
    end('Split-brain condition!'),
    false,
  ).join('\n');
  assert.match(told, /both nodes were written/);
  assert.match(told, /hastctl role secondary data; hastctl discard data/);
});

notes('a peer without a role is named with the command for it', () => {
  const text = 'Remote node acts as init for the resource and not as secondary.';
  const told = notesOf('data', { phase: 'secondary' }, null, end(text), false).join('\n');
  assert.match(told, /hastctl role secondary data there/);
});

notes('what keeps a primary from connecting comes with what to do next', () => {
  for (const [text, next] of [
    [
      'sizes differ: data 2097152 here, 1048576 there; extents 2048 here, 2048 there (x)',
      /this node has more room.*hastctl create -m SIZE data/,
    ],
    [
      'sizes differ: data 1048576 here, 2097152 there; extents 2048 here, 2048 there (x)',
      /the other node has more room/,
    ],
    ['cannot connect to the peer: Connection refused', /is hastd running there/],
    ['cannot connect to the peer: Connection timed out', /is that host up/],
    ['the peer did not answer the first message: Connection timed out', /look at the log/],
    [
      'Authentication required: this node has a secret for the resource, the peer sent none.',
      /same statement secret/,
    ],
    ['Authentication required: the secret of this node cannot be read.', /see its log/],
    ['Authentication failed: the secrets differ.', /copy that of one node/],
    ['the peer could not prove that it knows the secret', /copy that of one node/],
    ['the peer has no secret for the resource: configure the same file', /same statement secret/],
    [
      "this node's copy is stale and the peer that has the good one cannot be reached (x)",
      /hastctl role secondary data there/,
    ],
  ] as const) {
    assert.match(notesOf('data', { phase: 'init' }, null, end(text), false).join('\n'), next);
  }
});

notes.run();
