/**
 * The asking end of the control socket. Every question has a deadline, every answer a bound and a
 * check; a failure that the daemon reports keeps the exit code it came with.
 */
import { type IncomingMessage, request } from 'node:http';
import * as v from 'valibot';
import { HastError, isErrorCode } from '../error.ts';
import {
  CONTROL_LIMITS,
  FailureSchema,
  type ReloadAnswer,
  ReloadAnswerSchema,
  ResourceSchema,
  type ResourceStatus,
  type RoleAnswer,
  RoleAnswerSchema,
  type RoleRequest,
  type Why,
  WhySchema,
} from './protocol.ts';

/** What one resource answered, or why there is no answer for it. */
export type ResourceReport =
  | { readonly name: string; readonly status: ResourceStatus }
  | { readonly name: string; readonly error: HastError };

/** Deadlines in seconds; tests shorten them. */
export interface ClientLimits {
  readonly answerSeconds: number;
  readonly roleAnswerSeconds: number;
}

/** An answer may be longer than any request: a thousand resources fit. */
const ANSWER_BYTES_MAX = 16 * 1024 * 1024;
/** Below the number of clients that the daemon takes at a time. */
const PARALLEL_MAX = CONTROL_LIMITS.clients / 2;

const ListSchema = v.object({ resources: v.array(v.unknown()) });
const NameSchema = v.object({ name: v.string() });

interface Question {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly body?: unknown;
  readonly seconds: number;
  readonly signal?: AbortSignal | undefined;
}
interface Answer {
  readonly status: number;
  readonly body: string;
}

function exchange(what: string, cause?: unknown): HastError {
  return new HastError('CTL_EXCHANGE', { message: `the daemon did not answer: ${what}`, cause });
}

function unanswered(error: NodeJS.ErrnoException, socketPath: string, seconds: number): HastError {
  if (error instanceof HastError) return error;
  if (error.syscall === 'connect') {
    return new HastError('CTL_CONNECT', {
      message: `the daemon cannot be reached at ${socketPath}: ${error.code ?? error.message}`,
      hint:
        error.code === 'EACCES' || error.code === 'EPERM'
          ? 'be root, or the user of hastd'
          : undefined,
      cause: error,
    });
  }
  if (error.name === 'TimeoutError' || error.name === 'AbortError') {
    return exchange(`no answer within ${seconds} s`, error);
  }
  return exchange(error.message, error);
}

async function readBody(message: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of message as AsyncIterable<Buffer>) {
    size += part.length;
    if (size > ANSWER_BYTES_MAX) throw exchange(`more than ${ANSWER_BYTES_MAX} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8');
}

function parsed<T>(schema: v.GenericSchema<unknown, T>, body: string): T {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch (error) {
    throw exchange('the answer is not JSON', error);
  }
  const result = v.safeParse(schema, value);
  if (result.success) return result.output;
  throw exchange(`the answer is not what it should be: ${v.summarize(result.issues)}`);
}

/** The daemon's own words for what went wrong; its exit code when it is one. */
function failureOf({ status, body }: Answer): HastError {
  const { code, message, hint, exit } = parsed(FailureSchema, body);
  const valid = Number.isInteger(exit) && exit > 0 && exit < 256;
  return new HastError(isErrorCode(code) ? code : 'CTL_EXCHANGE', {
    message: message === '' ? `the daemon answered ${status}` : message,
    hint,
    exit: valid ? exit : undefined,
  });
}

export class ControlClient {
  readonly #socketPath: string;
  readonly #limits: ClientLimits;

  constructor(socketPath: string, limits: ClientLimits = CONTROL_LIMITS) {
    this.#socketPath = socketPath;
    this.#limits = limits;
  }

  /**
   * All resources of the running daemon, in its order. One that cannot be understood is a report
   * with an error and does not touch the others.
   * @param signal  nobody wants the answer any more
   * @throws HastError CTL_CONNECT, CTL_EXCHANGE
   */
  async resources(signal?: AbortSignal): Promise<readonly ResourceReport[]> {
    const seconds = this.#limits.answerSeconds;
    const body = await this.#ask({ method: 'GET', path: '/v1/resources', seconds, signal });
    return parsed(ListSchema, body).resources.map((item) => {
      const { name } = parsed(NameSchema, JSON.stringify(item));
      const status = v.safeParse(ResourceSchema, item);
      if (status.success) return { name, status: status.output };
      return { name, error: exchange(`${name}: ${v.summarize(status.issues)}`) };
    });
  }

  /** One resource. @throws HastError also RESOURCE_UNKNOWN */
  async resource(name: string): Promise<ResourceStatus> {
    const seconds = this.#limits.answerSeconds;
    const path = `/v1/resources/${encodeURIComponent(name)}`;
    return parsed(ResourceSchema, await this.#ask({ method: 'GET', path, seconds }));
  }

  /** Why one resource is as it is. @throws HastError also RESOURCE_UNKNOWN */
  async why(name: string): Promise<Why> {
    const seconds = this.#limits.answerSeconds;
    const path = `/v1/resources/${encodeURIComponent(name)}/why`;
    return parsed(WhySchema, await this.#ask({ method: 'GET', path, seconds }));
  }

  /**
   * Answers when the role is really taken.
   * @throws HastError as the daemon reports it, CTL_CONNECT, CTL_EXCHANGE
   */
  async setRole(name: string, body: RoleRequest): Promise<RoleAnswer> {
    const seconds = this.#limits.roleAnswerSeconds;
    const path = `/v1/resources/${encodeURIComponent(name)}/role`;
    return parsed(RoleAnswerSchema, await this.#ask({ method: 'POST', path, body, seconds }));
  }

  /**
   * Answers when everything runs with the new configuration.
   * @throws HastError why it was not taken, CTL_CONNECT, CTL_EXCHANGE
   */
  async reload(): Promise<ReloadAnswer> {
    const seconds = this.#limits.roleAnswerSeconds;
    const body = await this.#ask({ method: 'POST', path: '/v1/reload', seconds });
    return parsed(ReloadAnswerSchema, body);
  }

  async #ask(question: Question): Promise<string> {
    let answer: Answer;
    try {
      answer = await this.#exchange(question);
    } catch (error) {
      throw unanswered(error as NodeJS.ErrnoException, this.#socketPath, question.seconds);
    }
    if (answer.status < 200 || answer.status > 299) throw failureOf(answer);
    return answer.body;
  }

  /** The deadline covers connecting, sending and the whole answer. */
  async #exchange({ method, path, body, seconds, signal }: Question): Promise<Answer> {
    const late = AbortSignal.timeout(seconds * 1000);
    const text = body === undefined ? undefined : JSON.stringify(body);
    const headers: Record<string, string | number> = {
      host: 'hastd',
      connection: 'close',
      'user-agent': 'hastctl',
    };
    if (text !== undefined) {
      headers['content-type'] = 'application/json';
      headers['content-length'] = Buffer.byteLength(text);
    }
    const message = await new Promise<IncomingMessage>((resolve, reject) => {
      const asked = request({
        socketPath: this.#socketPath,
        method,
        path,
        headers,
        agent: false,
        signal: signal === undefined ? late : AbortSignal.any([late, signal]),
      });
      asked.once('response', resolve);
      // Stays for what comes after the response: the body's reader gets that error too.
      asked.on('error', reject);
      asked.end(text);
    });
    return { status: message.statusCode ?? 0, body: await readBody(message) };
  }
}

/** Runs `each` for all items, many at a time; results in the order of the items. */
export async function inParallel<T, R>(
  items: readonly T[],
  each: (item: T) => Promise<R>,
): Promise<readonly R[]> {
  const results: R[] = [];
  let next = 0;
  const runner = async () => {
    while (next < items.length) {
      const index = next;
      next += 1;
      results[index] = await each(items[index] as T);
    }
  };
  await Promise.all(Array.from({ length: Math.min(PARALLEL_MAX, items.length) }, runner));
  return results;
}
