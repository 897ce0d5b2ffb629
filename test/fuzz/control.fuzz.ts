// Arbitrary bytes of a client of the control socket: whatever comes, the server answers with a
// status of its own or closes, reports no mistake of its own, and answers the next good request.
import { rmSync } from 'node:fs';
import { connect } from 'node:net';
import { ControlServer } from '../../src/control/server.ts';
import { HastError } from '../../src/error.ts';
import { native } from '../../src/native.ts';
import { resourceOf, whyAnswerOf } from '../helper/fake-daemon.ts';
import { ask } from '../helper/http.ts';
import { makeTempdir } from '../helper/tempdir.ts';
import { fuzz } from './loop.ts';

const STATUSES: readonly number[] = [100, 200, 400, 404, 405, 409, 413, 417];
const ANSWER_MS = 20;
const GOOD_MS = 10_000;

const directory = makeTempdir();
const path = `${directory}/ctl`;
process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
const problems: string[] = [];
const seen = new Set<number>();

const server = new ControlServer({
  admits: () => true,
  nameOf: () => 'root, pid 1',
  onProblem: (text) => problems.push(text),
  onAnswer: () => {},
  backend: {
    names: () => ['data', 'a b'],
    reload: () => Promise.resolve({ resources: [], statements: [], warnings: [] }),
    status: (name) => Promise.resolve(resourceOf(name)),
    why: (name) => Promise.resolve(whyAnswerOf(name)),
    changeRole: (name, { role, force, ifUnused }) => {
      if (!['init', 'primary', 'secondary'].includes(role)) throw new Error(`the role ${role}`);
      if (typeof force !== 'boolean' || typeof ifUnused !== 'boolean') throw new Error('the flags');
      if (role === 'primary') return Promise.reject(new HastError('ROLE_REFUSED'));
      return Promise.resolve({ name, previous: 'init', role, notices: [] });
    },
  },
});

/** Says the bytes, and gives what came back until the server closed, or was quiet for a while. */
function say(bytes: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const heard: Buffer[] = [];
    const socket = connect(path);
    const timer = setTimeout(() => socket.destroy(), ANSWER_MS);
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE' && error.code !== 'ECONNRESET') reject(error);
    });
    socket.on('data', (data) => {
      heard.push(data);
      timer.refresh();
    });
    socket.on('close', () => {
      clearTimeout(timer);
      resolve(Buffer.concat(heard));
    });
    socket.end(bytes);
  });
}

async function target(input: Buffer): Promise<void> {
  const heard = await say(input);
  if (heard.length > 0) {
    const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(heard.toString('latin1'))?.[1]);
    seen.add(status);
    if (!STATUSES.includes(status)) throw new Error(`answered: ${heard.toString()}`);
  }
  const good = await ask(path, 'GET', '/v1/resources', undefined, AbortSignal.timeout(GOOD_MS));
  if (good.status !== 200) throw new Error(`a good request got ${good.status}`);
  if (problems.length > 0) throw new Error(problems.join('\n'));
}

const WORDS = [
  'GET ',
  'POST ',
  '/v1/resources/data/role',
  '/v1/events',
  '%zz',
  ' HTTP/1.1\r\n',
  '\r\n\r\n',
  'content-length: ',
  'transfer-encoding: chunked\r\n',
  'expect: 100-continue\r\n',
  'connection: upgrade\r\nupgrade: x\r\n',
  '{"role":"secondary"}',
  '__proto__',
];

await server.listen(native.host.listenUnix(path, 0o600, -1, -1));
const whole = await fuzz('control', target, WORDS);
// What only the parser of HTTP has seen says nothing about ours.
if (whole && !seen.has(200)) throw new Error('no input reached a route');
server.close();
