/**
 * The worker's program: `worker-main TITLE`, started by the supervisor and by nobody else.
 * It loads the addon and little more: it lives as long as the disk above it.
 */
import { closeSync, readdirSync, readFileSync } from 'node:fs';
import { native } from '../native.ts';
import { WorkerBody, type WorkerPort } from './worker.ts';
import { type ParentMessage, WORKER_FDS, type WorkerMessage } from './worker-protocol.ts';

const CLOSE_ON_EXEC = 0o2000000;

/** What hastd itself inherited and did not know of: Node's own descriptors are close-on-exec. */
function closeStrays(): void {
  for (const fd of readdirSync('/proc/self/fd').map(Number)) {
    if (fd <= WORKER_FDS.second) continue;
    try {
      const flags = /^flags:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1];
      if (flags !== undefined && (Number.parseInt(flags, 8) & CLOSE_ON_EXEC) === 0) closeSync(fd);
    } catch {
      // The descriptor of the listing itself.
    }
  }
}

const port: WorkerPort = {
  send(message: WorkerMessage, sent = () => {}) {
    if (process.send === undefined || !process.connected) sent();
    else process.send(message, () => sent());
  },
  exit(code: number) {
    process.exit(code);
  },
};

const body = new WorkerBody(native, port);

process.on('uncaughtException', (error) => body.fault(error));
process.on('unhandledRejection', (error) => body.fault(error));
process.on('SIGHUP', () => {}); // a reload is for the parent
process.on('SIGTERM', () => body.stop());
process.on('SIGINT', () => body.stop());
process.on('message', (message) => body.receive(message as ParentMessage));
process.on('disconnect', () => body.stop()); // the parent died: drain and end

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
port.send({ kind: 'hello', refused: native.host.confine() });
