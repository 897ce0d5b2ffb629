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
  assert.match(told, /hastctl create data/);
});

notes('a peer without a role is named with the command for it', () => {
  const text = 'Remote node acts as init for the resource and not as secondary.';
  const told = notesOf('data', { phase: 'secondary' }, null, end(text), false).join('\n');
  assert.match(told, /hastctl role secondary data there/);
});

notes.run();
