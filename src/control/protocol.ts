/**
 * Shapes of the control socket: HTTP/1.1 with JSON over a UNIX socket (docs/control.md).
 * Both ends validate with these; nobody else knows the words.
 */
import * as v from 'valibot';

export const RoleSchema = v.picklist(['init', 'primary', 'secondary']);
export type Role = v.InferOutput<typeof RoleSchema>;

/** `POST /v1/resources/NAME/role`. The answer comes when the role is really taken. */
export const RoleRequestSchema = v.strictObject({
  role: RoleSchema,
  /** `-f`: skip the refusals of which the text says that -f skips them. */
  force: v.optional(v.boolean(), false),
  /** Refuse to demote while the provider is open. */
  ifUnused: v.optional(v.boolean(), false),
});
export type RoleRequest = v.InferOutput<typeof RoleRequestSchema>;

/** Body of every answer other than 2xx. `exit` is what hastctl ends with for it. */
export const FailureSchema = v.object({
  code: v.string(),
  message: v.string(),
  hint: v.optional(v.string()),
  exit: v.number(),
});
export type Failure = v.InferOutput<typeof FailureSchema>;

/** Why something is not as it should be, and what hastctl ends with for it. */
const ReasonSchema = v.object({ code: v.string(), message: v.string(), exit: v.number() });

export const RoleAnswerSchema = v.object({
  name: v.string(),
  previous: RoleSchema,
  role: RoleSchema,
  /**
   * Said to the operator even though the change was made (degraded start, split-brain seen ...).
   */
  notices: v.array(v.string()),
});
export type RoleAnswer = v.InferOutput<typeof RoleAnswerSchema>;

/** Answer of `POST /v1/reload`, once everything runs with the new configuration. */
export const ReloadAnswerSchema = v.object({
  /** Those that differ, in the order of the file, and those that are gone. */
  resources: v.array(
    v.object({
      name: v.string(),
      change: v.picklist(['added', 'removed', 'restarted', 'in-place']),
      /** Statements whose values differ. */
      statements: v.array(v.string()),
      /** Why the resource does not have the role that it had. */
      error: v.nullable(ReasonSchema),
    }),
  ),
  /** Global statements that differ. */
  statements: v.array(v.string()),
  /** What could not be done, and what the file is warned of. */
  warnings: v.array(v.string()),
});
export type ReloadAnswer = v.InferOutput<typeof ReloadAnswerSchema>;

// The log and hastctl tell it in the same words.

export type Change = ReloadAnswer['resources'][number]['change'];

const DONE: Readonly<Record<Change, string>> = {
  added: 'added',
  removed: 'removed',
  restarted: 'restarted with the new configuration',
  'in-place': 'takes the new configuration as it runs',
};
export const NOTHING_CHANGED = 'the configuration has not changed';
export const IN_FORCE = 'the new configuration is in force';

/** Without a full stop. `failed`: the resource does not have the role that it had. */
export function describeChange(
  { change, failed }: { readonly change: Change; readonly failed: boolean },
  statements: readonly string[],
): string {
  return withStatements(failed ? 'could not take its role again' : DONE[change], statements);
}

export function withStatements(text: string, statements: readonly string[]): string {
  return statements.length === 0 ? text : `${text} (${statements.join(', ')})`;
}

export const WorkerSchema = v.object({
  pid: v.number(),
  status: v.picklist(['complete', 'degraded']),
  state: v.picklist(['connecting', 'degraded', 'syncing', 'in-sync', 'secondary', 'stopping']),
  reason: v.string(),
  peerKind: v.picklist(['none', 'ours', 'original']),
  protocolVersion: v.number(),
  replication: v.picklist(['fullsync', 'memsync', 'async']),
  syncSource: v.picklist(['none', 'local', 'remote']),
  extentBytes: v.number(),
  keepdirty: v.number(),
  dirtyBytes: v.number(),
  syncBytesLeft: v.number(),
  syncBytesDone: v.number(),
  syncBytesPerSecond: v.number(),
  localStale: v.boolean(),
  clients: v.array(v.string()),
  inFlight: v.number(),
  reads: v.number(),
  writes: v.number(),
  deletes: v.number(),
  flushes: v.number(),
  activemapUpdates: v.number(),
  readErrors: v.number(),
  writeErrors: v.number(),
  deleteErrors: v.number(),
  flushErrors: v.number(),
  queueLocal: v.number(),
  queueSend: v.number(),
  queueRecv: v.number(),
  queueDone: v.number(),
  queueIdle: v.number(),
});
export type WorkerStatus = v.InferOutput<typeof WorkerSchema>;

/** Is a worker's reason that both copies were written to? */
export function isSplitBrain(reason: string): boolean {
  return reason.startsWith('Split-brain condition!');
}

/** What the peer says no with, or what both must agree on; src-native/engine/connector.cc. */
const REFUSAL = new RegExp(
  '^(Remote node acts|Resource|No access|Authentication|The secondary|sizes differ|' +
    'the peer (has no|could not prove))',
);

/** Is a worker's reason that the peer answers and refuses? */
export function isRefusal(reason: string): boolean {
  return REFUSAL.test(reason);
}

/** `GET /v1/resources/NAME`, and each element of `GET /v1/resources` ({resources: [...]}). */
export const ResourceSchema = v.object({
  name: v.string(),
  provname: v.string(),
  role: RoleSchema,
  local: v.string(),
  remote: v.string(),
  source: v.nullable(v.string()),
  export: v.string(),
  /** Path of the kernel's device; null while there is none. */
  device: v.nullable(v.string()),
  replication: v.picklist(['fullsync', 'memsync', 'async']),
  checksum: v.string(),
  compression: v.string(),
  /** Why the resource is in this state and which command comes next; empty when all is well. */
  notes: v.array(v.string()),
  /** The last failure of a worker, kept until the next role change. */
  lastError: v.nullable(ReasonSchema),
  /** The programs of `exec`. */
  hooks: v.object({
    /** Event and arguments of the one that runs now. */
    running: v.nullable(v.string()),
    runningSeconds: v.number(),
    waiting: v.number(),
    /** What was wrong with the last one that has ended; null when it ended well. */
    failure: v.nullable(v.string()),
  }),
  worker: v.nullable(WorkerSchema),
});
export type ResourceStatus = v.InferOutput<typeof ResourceSchema>;
export const ResourceListSchema = v.object({ resources: v.array(ResourceSchema) });

/** `GET /v1/events`: one JSON object in each `data:` line. */
export const EventSchema = v.object({
  time: v.string(),
  resource: v.string(),
  event: v.string(),
  detail: v.optional(v.record(v.string(), v.union([v.string(), v.number()]))),
});
export type ControlEvent = v.InferOutput<typeof EventSchema>;

/** One transition of a resource, or the same one several times. */
export const HistoryEntrySchema = v.object({
  /** When it was first, and when last. */
  time: v.string(),
  last: v.string(),
  times: v.number(),
  event: v.string(),
  detail: v.record(v.string(), v.union([v.string(), v.number()])),
});
export type HistoryEntry = v.InferOutput<typeof HistoryEntrySchema>;

/** Commands that belong together. */
export const StepSchema = v.object({
  text: v.string(),
  on: v.picklist(['here', 'peer']),
  commands: v.array(v.string()),
  /** What is gone for good after them; null: nothing. */
  loses: v.nullable(v.string()),
});
export type Step = v.InferOutput<typeof StepSchema>;

/** `GET /v1/resources/NAME/why`. */
export const WhySchema = v.object({
  name: v.string(),
  node: v.string(),
  role: RoleSchema,
  /** A word for programs. */
  state: v.string(),
  /** Sentences for people. */
  now: v.array(v.string()),
  /** Oldest first. */
  history: v.array(HistoryEntrySchema),
  /** Whether the copy here is whole; null: nobody can know. */
  data: v.object({ complete: v.nullable(v.boolean()), text: v.string() }),
  ifThisNodeDies: v.string(),
  ifPeerDies: v.string(),
  next: v.object({ text: v.string(), steps: v.array(StepSchema) }),
});
export type Why = v.InferOutput<typeof WhySchema>;

export const CONTROL_LIMITS = {
  headerBytes: 16 * 1024,
  bodyBytes: 64 * 1024,
  clients: 64,
  queuedEvents: 256,
  /** hastctl waits this long for an answer, then exits 69. */
  answerSeconds: 30,
  roleAnswerSeconds: 120,
} as const;
