/**
 * The control socket: HTTP/1.1 with JSON, served from a UNIX socket that only its owner may open.
 * What it means is the backend's; here are paths, caps, deadlines and shapes.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import * as v from 'valibot';
import { asHastError, HastError } from '../error.ts';
import { EventStream } from './event-stream.ts';
import { metricsText } from './metrics.ts';
import {
  CONTROL_LIMITS,
  type ControlEvent,
  type Failure,
  type ReloadAnswer,
  type ResourceStatus,
  type RoleAnswer,
  type RoleRequest,
  RoleRequestSchema,
  type Why,
} from './protocol.ts';

export interface ControlBackend {
  /** In the order of the configuration. */
  names(): readonly string[];
  status(name: string): Promise<ResourceStatus>;
  why(name: string): Promise<Why>;
  /**
   * @param by  who asks, for the history
   * @throws HastError with the exit code for hastctl
   */
  changeRole(name: string, request: RoleRequest, by: string): Promise<RoleAnswer>;
  /** @throws HastError why the configuration stays as it was */
  reload(): Promise<ReloadAnswer>;
}

export interface ControlSettings {
  readonly backend: ControlBackend;
  /** Whether the process at the other end may talk to us; the socket's mode is the first door. */
  readonly admits: (socket: Socket) => boolean;
  /** What the system says of the process at the other end, in words. */
  readonly nameOf: (socket: Socket) => string;
  readonly onProblem: (text: string) => void;
  /** Each request with its answer, for the log. */
  readonly onAnswer: (text: string) => void;
}

const REQUEST_MS = 20_000;
const KEEP_ALIVE_MS = 5000;
const SHOWN_URL_CHARS = 200;

interface Route {
  readonly method: 'GET' | 'POST';
  readonly path: RegExp;
  readonly run: (call: Call) => Promise<void>;
}
interface Call {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** What the path's groups matched, decoded. */
  readonly words: readonly string[];
}

export class ControlServer {
  readonly #settings: ControlSettings;
  /** The newest one accepts; older ones end with their last connection. */
  readonly #servers = new Set<Server>();
  readonly #events = new EventStream();
  readonly #routes: readonly Route[];

  constructor(settings: ControlSettings) {
    this.#settings = settings;
    this.#routes = [
      { method: 'GET', path: /^\/v1\/resources$/, run: (call) => this.#list(call) },
      { method: 'GET', path: /^\/v1\/resources\/([^/]+)$/, run: (call) => this.#one(call) },
      { method: 'GET', path: /^\/v1\/resources\/([^/]+)\/why$/, run: (call) => this.#why(call) },
      { method: 'POST', path: /^\/v1\/resources\/([^/]+)\/role$/, run: (call) => this.#role(call) },
      {
        method: 'GET',
        path: /^\/v1\/events$/,
        run: async ({ response }) => this.#events.subscribe(response),
      },
      { method: 'POST', path: /^\/v1\/reload$/, run: (call) => this.#reload(call) },
      { method: 'GET', path: /^\/metrics$/, run: (call) => this.#metrics(call) },
    ];
  }

  /** @param fd  a listening UNIX socket; the server owns it from here. One before it ends. */
  listen(fd: number): Promise<void> {
    for (const old of this.#servers) old.close(); // who is connected is still answered
    const server = this.#made();
    this.#servers.add(server.once('close', () => this.#servers.delete(server)));
    return new Promise((resolve) => server.listen({ fd }, resolve));
  }

  #made(): Server {
    const { admits, onProblem } = this.#settings;
    const server = createServer({
      maxHeaderSize: CONTROL_LIMITS.headerBytes,
      headersTimeout: REQUEST_MS,
      requestTimeout: REQUEST_MS,
      keepAliveTimeout: KEEP_ALIVE_MS,
      connectionsCheckingInterval: 1000,
    });
    server.maxConnections = CONTROL_LIMITS.clients;
    server.on('request', (request, response) => void this.#serve(request, response));
    server.on('connection', (socket) => {
      if (!admits(socket)) socket.destroy();
    });
    server.on('clientError', (error, socket) => answerBroken(error, socket as Socket));
    server.on('error', (error) => onProblem(`Control socket: ${error.message}.`));
    return server;
  }

  emit(event: ControlEvent): void {
    this.#events.emit(event);
  }

  /** Ends all connections; the socket's path is the caller's. */
  close(): void {
    for (const server of this.#servers) {
      server.close();
      server.closeAllConnections();
    }
  }

  // ---- One request ----------------------------------------------------------------------------

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => {}); // the client went away
    try {
      const what = `${request.method} ${request.url?.slice(0, SHOWN_URL_CHARS)}`;
      const by = this.#clientOf(request);
      response.once('close', () => {
        this.#settings.onAnswer(`${what} by ${by}: ${response.statusCode}.`);
      });
      const { run, words } = this.#find(request);
      await run({ request, response, words });
    } catch (error) {
      if (!(error instanceof HastError)) {
        const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
        this.#settings.onProblem(`Control request failed: ${text}`);
      }
      sendFailure(response, error);
    }
  }

  #clientOf(request: IncomingMessage): string {
    return `${programOf(request)} (${this.#settings.nameOf(request.socket)})`;
  }

  #find(request: IncomingMessage): { run: Route['run']; words: readonly string[] } {
    const path = (request.url ?? '').replace(/\?.*$/s, '');
    const fitting = this.#routes.flatMap((route) => {
      const match = route.path.exec(path);
      return match === null ? [] : [{ route, match }];
    });
    if (fitting.length === 0) throw new HastError('HTTP_NOT_FOUND', { message: `no path ${path}` });
    const chosen = fitting.find(({ route }) => route.method === request.method);
    if (chosen === undefined) {
      const allowed = fitting.map(({ route }) => route.method).join(', ');
      throw new HastError('HTTP_METHOD', { message: `${path} takes ${allowed}` });
    }
    return { run: chosen.route.run, words: chosen.match.slice(1).map(decodeWord) };
  }

  async #list({ response }: Call): Promise<void> {
    sendJson(response, 200, { resources: await this.#all() });
  }

  async #one({ response, words: [name = ''] }: Call): Promise<void> {
    this.#known(name, undefined);
    sendJson(response, 200, await this.#settings.backend.status(name));
  }

  async #why({ response, words: [name = ''] }: Call): Promise<void> {
    this.#known(name, undefined);
    sendJson(response, 200, await this.#settings.backend.why(name));
  }

  async #role({ request, response, words: [name = ''] }: Call): Promise<void> {
    this.#known(name, ROLE_UNKNOWN_EXIT);
    const by = this.#clientOf(request);
    const body = v.safeParse(RoleRequestSchema, parseJson(await readBody(request)));
    if (!body.success) {
      const issue = body.issues[0];
      const where = v.getDotPath(issue);
      const message = where === null ? issue.message : `${where}: ${issue.message}`;
      throw new HastError('HTTP_BAD_REQUEST', { message });
    }
    sendJson(response, 200, await this.#settings.backend.changeRole(name, body.output, by));
  }

  async #reload({ request, response }: Call): Promise<void> {
    await readBody(request); // nothing to say yet; what was not read would be the next request
    sendJson(response, 200, await this.#settings.backend.reload());
  }

  async #metrics({ response }: Call): Promise<void> {
    const text = metricsText(await this.#all());
    response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' });
    response.end(text);
  }

  #all(): Promise<ResourceStatus[]> {
    const { backend } = this.#settings;
    return Promise.all(backend.names().map((name) => backend.status(name)));
  }

  #known(name: string, exit: number | undefined): void {
    if (this.#settings.backend.names().includes(name)) return;
    throw new HastError('RESOURCE_UNKNOWN', {
      message: `${name}: no such resource in the running hastd`,
      hint: 'hastctl status lists them; after a change of hast.conf: hastctl reload',
      exit,
    });
  }
}

/** `hastctl role` of a name that the daemon does not know ends with the old daemon's error. */
const ROLE_UNKNOWN_EXIT = 1;

// ---- Shapes -----------------------------------------------------------------------------------

const STATUS_OF: Readonly<Record<string, number>> = {
  RESOURCE_UNKNOWN: 404,
  HTTP_NOT_FOUND: 404,
  HTTP_METHOD: 405,
  HTTP_TOO_LARGE: 413,
  HTTP_BAD_REQUEST: 400,
  HTTP_DENIED: 403,
  ROLE_REFUSED: 409,
  CONFIG_SYNTAX: 422,
  CONFIG_MEANING: 422,
  RELOAD_REFUSED: 409,
  ROLE_FAILED: 500,
};

export function failureOf(error: unknown): { readonly status: number; readonly body: Failure } {
  const { code, message, hint, exit } = asHastError(error);
  const body: Failure = { code, message, exit, ...(hint === undefined ? {} : { hint }) };
  return { status: STATUS_OF[code] ?? 500, body };
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  if (response.headersSent) return;
  const text = `${JSON.stringify(body)}\n`;
  response.writeHead(status, {
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(text),
  });
  response.end(text);
}

function sendFailure(response: ServerResponse, error: unknown): void {
  const { status, body } = failureOf(error);
  // What was not read of a body would be taken for the next request.
  if (status >= 400 && !response.req.complete) response.setHeader('connection', 'close');
  sendJson(response, status, body);
}

/** A request that is not HTTP, or whose head is over the cap. */
function answerBroken(error: NodeJS.ErrnoException, socket: Socket): void {
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy();
    return;
  }
  const large = error.code === 'HPE_HEADER_OVERFLOW';
  const { status, body } = failureOf(new HastError(large ? 'HTTP_TOO_LARGE' : 'HTTP_BAD_REQUEST'));
  const text = `${JSON.stringify(body)}\n`;
  socket.end(
    `HTTP/1.1 ${status} ${large ? 'Content Too Large' : 'Bad Request'}\r\n` +
      'content-type: application/json; charset=utf-8\r\n' +
      `content-length: ${Buffer.byteLength(text)}\r\nconnection: close\r\n\r\n${text}`,
  );
}

/** What the client calls itself. */
function programOf({ headers }: IncomingMessage): string {
  const agent = headers['user-agent'] ?? '';
  return /^[\w./-]{1,40}$/.test(agent) ? agent : 'a client';
}

function decodeWord(word: string): string {
  try {
    return decodeURIComponent(word);
  } catch {
    throw new HastError('HTTP_BAD_REQUEST', { message: 'the path is not valid' });
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new HastError('HTTP_BAD_REQUEST', { message: 'the body is not JSON' });
  }
}

function tooLarge(): HastError {
  const message = `the body is over ${CONTROL_LIMITS.bodyBytes} bytes`;
  return new HastError('HTTP_TOO_LARGE', { message });
}

/** Node's own deadline ends a request that never comes. */
async function readBody(request: IncomingMessage): Promise<string> {
  if (Number(request.headers['content-length'] ?? 0) > CONTROL_LIMITS.bodyBytes) throw tooLarge();
  const chunks: Buffer[] = [];
  let size = 0;
  return new Promise((resolve, reject) => {
    request.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > CONTROL_LIMITS.bodyBytes) {
        request.pause();
        reject(tooLarge());
      } else {
        chunks.push(chunk);
      }
    });
    request.on('end', () => resolve(Buffer.concat(chunks).toString()));
    // A client that goes away within its body is no failure of ours.
    const cutOff = () => reject(new HastError('HTTP_BAD_REQUEST'));
    request.on('error', cutOff);
    request.on('close', cutOff);
  });
}
