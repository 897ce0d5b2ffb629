/**
 * The worker's program: `worker-main TITLE`, started by the supervisor and by nobody else.
 * It loads the addon and little more: it lives as long as the disk above it.
 */
import { native } from '../native.ts';
import { WorkerBody, type WorkerPort } from './worker.ts';
import type { ParentMessage, WorkerMessage } from './worker-protocol.ts';

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
process.title = title;
process.chdir('/');
process.umask(0o077);
port.send({ kind: 'hello', refused: native.host.confine() });
