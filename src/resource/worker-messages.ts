/**
 * A worker's lines as its supervisor reads them. A worker parses what strangers send, and whoever
 * listens to it may be root: nothing is taken from it that is not of the right shape.
 */
import * as v from 'valibot';
import { WorkerSchema } from '../control/protocol.ts';
import type { WorkerMessage } from './worker-protocol.ts';

const TEXT_CHARS = 4096;
const text = v.pipe(
  v.string(),
  v.transform((whole) => whole.slice(0, TEXT_CHARS)),
);
const number = v.pipe(v.number(), v.integer());

const EventSchema = v.variant('type', [
  v.object({
    type: v.literal('log'),
    level: v.picklist(['error', 'warning', 'notice', 'info', 'debug1', 'debug2']),
    text,
  }),
  v.object({ type: v.literal('ready') }),
  v.object({
    type: v.literal('event'),
    name: v.picklist(['connect', 'disconnect', 'syncstart', 'syncdone', 'syncintr', 'split-brain']),
  }),
  v.object({ type: v.literal('end'), exit: number, code: text, text }),
]);

const RunSchema = v.object({
  role: v.picklist(['primary', 'secondary']),
  ready: v.boolean(),
  connected: v.boolean(),
  stopping: v.boolean(),
});

const MessageSchema = v.variant('kind', [
  v.object({
    kind: v.literal('hello'),
    version: text,
    refused: v.array(text),
    run: v.nullable(RunSchema),
  }),
  v.object({ kind: v.literal('adopted'), run: v.nullable(RunSchema) }),
  v.object({ kind: v.literal('busy') }),
  v.object({ kind: v.literal('engine'), event: EventSchema }),
  v.object({ kind: v.literal('stats'), id: number, stats: v.omit(WorkerSchema, ['pid']) }),
]);

/** What any version begins with. */
const GreetingSchema = v.object({ kind: v.literal('hello'), version: text });

/** Undefined when it is no message. */
export function parseWorkerMessage(line: string): WorkerMessage | undefined {
  return parse(MessageSchema, line);
}

/** Of the first line; undefined when it is none. */
export function parseVersion(line: string): string | undefined {
  return parse(GreetingSchema, line)?.version;
}

function parse<S extends v.GenericSchema>(schema: S, line: string): v.InferOutput<S> | undefined {
  try {
    const { success, output } = v.safeParse(schema, JSON.parse(line));
    return success ? (output as v.InferOutput<S>) : undefined;
  } catch {
    return undefined;
  }
}
