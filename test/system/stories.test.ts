// The stories of docs/stories are told as they stand there.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { withDeadline } from '../helper/deadline.ts';
import { freePorts } from '../helper/lane.ts';
import { noPair, program, runProgram, workerUser } from '../helper/pair.ts';
import { missing, unless } from '../helper/skip.ts';

const STORY = new URL('../../docs/stories/handbook.sh', import.meta.url).pathname;
const stories = suite('stories');
const reason = ['nbdcopy', 'jq'].map(missing).find((one) => one !== undefined);

unless(stories, noPair() ?? reason)(
  'the handbook: from empty disks to a failover, a split-brain and both ways out of it',
  withDeadline(240_000, async () => {
    const [port] = await freePorts();
    const words = (name: 'hastd' | 'hastctl') => [process.execPath, ...program(name)].join(' ');
    const { code, stdout, stderr } = await runProgram('env', [
      `PORT=${port}`,
      `HASTD=${words('hastd')}`,
      `HASTCTL=${words('hastctl')}`,
      `HAST_USER=${workerUser()?.name ?? ''}`,
      'sh',
      STORY,
    ]);
    assert.is(code, 0, `${stdout}\n${stderr}`);
    assert.match(stdout, 'beta serves a clean file system that says "kept by beta again"');
    assert.match(stdout, 'All of it went as the handbook says.');
  }),
);

stories.run();
