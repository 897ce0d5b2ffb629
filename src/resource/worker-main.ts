/**
 * The worker's program: `worker-main TITLE`, started by the supervisor and by nobody else. It takes
 * the title of its resource when it learns of it.
 * It loads the addon and little more: it lives as long as the disk above it.
 */
import { closeSync, readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { fdOf, native } from '../native.ts';
import { ignoreUserSignals } from '../signals.ts';
import { WorkerBody } from './worker.ts';
import { DOOR_LIMITS, WorkerDoor } from './worker-door.ts';
import { programVersion, titleOf, WORKER_FDS } from './worker-protocol.ts';

const CLOSE_ON_EXEC = 0o2000000;

/** What hastd itself inherited and did not know of: Node's own descriptors are close-on-exec. */
function closeStrays(): void {
  for (const fd of readdirSync('/proc/self/fd').map(Number)) {
    if (fd <= WORKER_FDS.gifts) continue;
    try {
      const flags = /^flags:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1];
      if (flags !== undefined && (Number.parseInt(flags, 8) & CLOSE_ON_EXEC) === 0) closeSync(fd);
    } catch {
      // The descriptor of the listing itself.
    }
  }
}

/** Of the environment, for tests and for those who want another one. */
function orphanMs(): number {
  const seconds = Number(process.env.HASTD_ORPHAN ?? Number.NaN);
  return seconds >= 0 ? Math.min(seconds * 1000, 2 ** 31 - 1) : DOOR_LIMITS.orphanMs;
}

const title = process.argv[2] ?? 'hastd: (worker)';
if (title === '--check') {
  // Asked by a daemon that starts: can this user load all of it?
  const { host } = native;
  process.exit(typeof host.confine === 'function' ? 0 : 1);
}
closeStrays();
process.title = title;
process.chdir('/');
process.umask(0o077);

const { host } = native;
// Whoever had made the socket, and nobody else, is heard.
const { uid: owner } = host.peerCredentials(WORKER_FDS.door);
const version = programVersion();
// Listens anew: from now on the kernel says that it is this process which answers.
const server = createServer().listen({ fd: WORKER_FDS.door });
const door = new WorkerDoor({
  version,
  refused: host.confine(),
  admits: (socket) => host.peerCredentials(fdOf(socket) ?? -1).uid === owner,
  orphanMs: orphanMs(),
  exit: (code) => process.exit(code),
  die: () => process.abort(),
});
const body = new WorkerBody(native, door, ({ resource, role }) => {
  process.title = titleOf(resource, role);
  return host.receiveDescriptors(WORKER_FDS.gifts);
});

process.on('uncaughtException', (error) => body.fault(error));
process.on('unhandledRejection', (error) => body.fault(error));
process.on('SIGHUP', () => {}); // a reload is for the parent
ignoreUserSignals();
process.on('SIGTERM', () => body.stop());
process.on('SIGINT', () => body.stop());
door.serve(server, body);
