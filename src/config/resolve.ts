import { posix } from 'node:path';
import { HastError, type Position } from '../error.ts';
import { covers, isLoopback, isRefusal, isWildcard, type Parsed, sameAddress } from './address.ts';
import {
  type Address,
  CHECKSUMS,
  COMPRESSIONS,
  type Config,
  DEMOTIONS,
  DEVICES,
  EVENTS,
  REPLICATIONS,
  type Resource,
  STARTS,
  type TcpAddress,
  type UdsAddress,
  type Warning,
} from './config.ts';
import { DEFAULTS, defaultExport, LIMITS, LISTEN_IPV4, LISTEN_IPV6 } from './defaults.ts';
import type { Keyword } from './keywords.ts';
import { matchesNode, namesAsText } from './node-names.ts';
import type { ConfigTree, NodeBlock, ResourceBlock, Setting, Spot } from './parse.ts';
import { Problems } from './problems.ts';
import * as values from './values.ts';

/** What the command line and the kernel say, over or instead of the file. */
export interface Overrides {
  /** `-P`. */
  readonly pidfile?: string | undefined;
  /** `-n`: the one name of this node, instead of all that it was found to have. */
  readonly node?: string | undefined;
  /** What the kernel can do; both when left out. Decides what is listened on by default. */
  readonly families?: { readonly ipv4: boolean; readonly ipv6: boolean } | undefined;
}

type Settings = readonly Setting[];
type Read<T> = (text: string) => Parsed<T>;

function settingsOf(body: readonly { readonly kind: string }[]): Settings {
  return body.filter((statement): statement is Setting => statement.kind === 'setting');
}

/** The last one of the first scope that has any: scopes go from the most specific on. */
function effective(keyword: Keyword, scopes: readonly Settings[]): Setting | undefined {
  for (const scope of scopes) {
    const found = scope.findLast((setting) => setting.keyword === keyword);
    if (found !== undefined) return found;
  }
  return undefined;
}

/**
 * The value in force. A value that cannot be read has been reported by `check` already; it then
 * counts as absent, so that the search for further problems can go on.
 */
function inForce<T>(keyword: Keyword, scopes: readonly Settings[], read: Read<T>): T | undefined {
  const setting = effective(keyword, scopes);
  if (setting === undefined) return undefined;
  const parsed = read(setting.value.text);
  return isRefusal(parsed) ? undefined : parsed.value;
}

function mustRead<T>(parsed: Parsed<T>): T {
  if (isRefusal(parsed)) throw new HastError('INTERNAL', { message: parsed.problem });
  return parsed.value;
}

/** A resolution under way. */
class Resolution {
  readonly tree: ConfigTree;
  readonly names: readonly string[];
  readonly overrides: Overrides;
  readonly problems: Problems;
  readonly warnings: Warning[] = [];

  constructor(tree: ConfigTree, names: readonly string[], overrides: Overrides) {
    this.tree = tree;
    this.names = overrides.node === undefined ? names : [overrides.node];
    this.overrides = overrides;
    this.problems = new Problems(tree.file);
  }

  position(at: Spot): Position {
    return { file: this.tree.file, line: at.line, column: at.column };
  }

  /** Says it once: a statement for all resources is looked at with each of them. */
  warn(at: Spot, text: string): void {
    const before = this.warnings.some(
      (w) => w.text === text && w.at.line === at.line && w.at.column === at.column,
    );
    if (!before) this.warnings.push({ at: this.position(at), text });
  }

  /** Reports what is wrong with the values of statements that apply to this node. */
  check(settings: Settings): void {
    for (const { keyword, value } of settings) {
      const parsed = values.CHECKS[keyword](value.text);
      if (isRefusal(parsed)) {
        this.problems.add(value.at, `${keyword}: ${parsed.problem}`, parsed.hint);
      }
    }
  }

  isOwn(block: NodeBlock): boolean {
    return matchesNode(block.name.text, this.names);
  }

  run(): Config {
    const body = this.tree.body;
    const file = settingsOf(body);
    const blocks = body.filter((statement): statement is NodeBlock => statement.kind === 'on');
    const own = blocks.filter((block) => this.isOwn(block)).flatMap((block) => block.body);
    for (const foreign of blocks.filter((block) => !this.isOwn(block))) this.checkForeign(foreign);
    this.check(file);
    this.check(own);
    const scopes = [own, file];

    const control =
      inForce('control', scopes, values.controlAddress) ??
      mustRead(values.controlAddress(DEFAULTS.control));
    const listen = this.listen();
    const resources = body
      .filter((statement): statement is ResourceBlock => statement.kind === 'resource')
      .map((block) => this.resource(block, own, file));
    const config = {
      control,
      pidfile: this.pidfile(inForce('pidfile', scopes, values.path)),
      listen,
      user: inForce('user', [file], values.userName) ?? DEFAULTS.user,
      statedir: inForce('statedir', scopes, values.absolutePath) ?? DEFAULTS.statedir,
      devdir: inForce('devdir', scopes, values.absolutePath) ?? DEFAULTS.devdir,
      resources: resources.filter((resource) => resource !== undefined),
    };
    this.compare(config);
    this.problems.throwIfAny();
    return { ...config, warnings: this.warnings };
  }

  /** Of a block of another node HAST looks at the length of `listen` and at nothing else. */
  checkForeign(block: NodeBlock): void {
    for (const { keyword, value } of block.body) {
      if (keyword !== 'listen' || value.text.length <= LIMITS.text) continue;
      const parsed = values.CHECKS.listen(value.text);
      if (isRefusal(parsed)) this.problems.add(value.at, `listen: ${parsed.problem}`, parsed.hint);
    }
  }

  pidfile(configured: string | undefined): string {
    const given = this.overrides.pidfile;
    if (given === undefined) return configured ?? DEFAULTS.pidfile;
    const parsed = values.path(given);
    if (!isRefusal(parsed)) return parsed.value;
    throw new HastError('CONFIG_MEANING', { message: `-P: ${parsed.problem}`, hint: parsed.hint });
  }

  /** All `listen` of the file and of own blocks, in file order, less what is there already. */
  listen(): readonly TcpAddress[] {
    const settings = this.tree.body
      .flatMap((statement) => {
        if (statement.kind === 'setting') return [statement];
        return statement.kind === 'on' && this.isOwn(statement) ? statement.body : [];
      })
      .filter((setting) => setting.keyword === 'listen');
    if (settings.length === 0) return this.defaultListen();
    const all = settings.flatMap((setting) => {
      const parsed = values.peerAddress(setting.value.text);
      return isRefusal(parsed) ? [] : [{ at: setting.value.at, address: parsed.value }];
    });
    return all
      .filter(({ at, address }, index) => {
        const reason = all.find(
          ({ address: other }, place) =>
            (place < index && sameAddress(other, address)) ||
            (!isWildcard(address) && covers(other, address)),
        );
        if (reason === undefined) return true;
        this.warn(at, `listen ${address.text} adds nothing to listen ${reason.address.text}`);
        return false;
      })
      .map(({ address }) => address);
  }

  defaultListen(): readonly TcpAddress[] {
    const { ipv4, ipv6 } = this.overrides.families ?? { ipv4: true, ipv6: true };
    const texts = [...(ipv4 ? [LISTEN_IPV4] : []), ...(ipv6 ? [LISTEN_IPV6] : [])];
    if (texts.length === 0) throw new HastError('CONFIG_NETWORK');
    return texts.map((text) => mustRead(values.peerAddress(text)));
  }

  /** Undefined when a part is missing without which there is no resource; that is reported. */
  resource(block: ResourceBlock, ownNode: Settings, file: Settings): Resource | undefined {
    const name = block.name.text;
    const nameRead = values.resourceName(name);
    if (isRefusal(nameRead)) {
      this.problems.add(block.name.at, `resource: ${nameRead.problem}`, nameRead.hint);
    }
    const body = settingsOf(block.body);
    this.check(body);
    const ownBlocks = block.body.filter(
      (statement): statement is NodeBlock => statement.kind === 'on' && this.isOwn(statement),
    );
    const own = ownBlocks.flatMap((statement) => statement.body);
    this.check(own);
    const last = ownBlocks.at(-1);
    if (last === undefined) {
      this.problems.add(
        block.name.at,
        `resource ${name} has no block for this node`,
        `this node is: ${namesAsText(this.names)}; add \`on NAME { ... }\` with one of these names`,
      );
      return undefined;
    }

    const scopes = [own, body];
    const general = [body, file];
    const withNode = [body, ownNode, file];
    const hasName = effective('name', scopes) !== undefined;
    const provname = hasName
      ? inForce('name', scopes, values.providerName)
      : this.nameAsProvider(block, !isRefusal(nameRead));
    const local = this.required('local', 'PATH', scopes, values.path, block, last);
    const remote = this.required('remote', 'ADDRESS', [own], values.remoteAddress, block, last);
    const insecure = inForce('export-insecure', withNode, values.onOff) ?? DEFAULTS.exportInsecure;
    const exported = this.export(block, provname, scopes, insecure);
    if (provname === undefined || local === undefined) return undefined;
    if (remote === undefined || exported === undefined) return undefined;
    return {
      name,
      provname,
      node: last.name.text,
      local,
      remote,
      source: inForce('source', [own], values.sourceAddress) ?? null,
      replication:
        inForce('replication', general, values.word(REPLICATIONS)) ?? DEFAULTS.replication,
      checksum: inForce('checksum', general, values.word(CHECKSUMS)) ?? DEFAULTS.checksum,
      compression:
        inForce('compression', general, values.word(COMPRESSIONS)) ?? DEFAULTS.compression,
      timeoutSeconds: this.timeout(general),
      exec: inForce('exec', general, values.pathOrNone) ?? null,
      metaflush: inForce('metaflush', [own, ...general], values.onOff) ?? DEFAULTS.metaflush,
      export: exported,
      exportInsecure: insecure,
      exportOwner: inForce('export-owner', withNode, values.userName) ?? null,
      device: inForce('device', [own, ...withNode], values.word(DEVICES)) ?? DEFAULTS.device,
      devdir: inForce('devdir', [ownNode, file], values.absolutePath) ?? DEFAULTS.devdir,
      start: inForce('start', withNode, values.word(STARTS)) ?? DEFAULTS.start,
      demotion: inForce('demotion', general, values.word(DEMOTIONS)) ?? DEFAULTS.demotion,
      events: inForce('events', general, values.word(EVENTS)) ?? DEFAULTS.events,
      secret: inForce('secret', general, values.absolutePathOrNone) ?? null,
      sectorSize: inForce('sectorsize', general, values.sectorSize) ?? null,
      position: this.position(block.at),
    };
  }

  /** The name of a resource is that of its provider too, unless it is too long for one. */
  nameAsProvider(block: ResourceBlock, good: boolean): string | undefined {
    if (!good) return undefined;
    const parsed = values.providerName(block.name.text);
    if (!isRefusal(parsed)) return parsed.value;
    this.problems.add(
      block.name.at,
      `name: ${parsed.problem}`,
      'add a shorter `name` to the resource',
    );
    return undefined;
  }

  required<T>(
    keyword: 'local' | 'remote',
    sample: string,
    scopes: readonly Settings[],
    read: Read<T>,
    block: ResourceBlock,
    own: NodeBlock,
  ): T | undefined {
    if (effective(keyword, scopes) === undefined) {
      const place = keyword === 'local' ? 'to the resource or ' : '';
      this.problems.add(
        own.at,
        `resource ${block.name.text} has no \`${keyword}\` on this node`,
        `add \`${keyword} ${sample}\` ${place}to \`on ${own.name.text}\``,
      );
    }
    return inForce(keyword, scopes, read);
  }

  timeout(scopes: readonly Settings[]): number {
    const setting = effective('timeout', scopes);
    const seconds = inForce('timeout', scopes, values.seconds) ?? DEFAULTS.timeoutSeconds;
    if (setting === undefined || seconds <= LIMITS.timeoutUsed) return seconds;
    this.warn(setting.value.at, `timeout: ${LIMITS.timeoutUsed} seconds are used at most`);
    return LIMITS.timeoutUsed;
  }

  export(
    block: ResourceBlock,
    provname: string | undefined,
    scopes: readonly Settings[],
    insecure: boolean,
  ): Address | undefined {
    const setting = effective('export', scopes);
    if (setting === undefined) {
      if (provname === undefined) return undefined;
      const parsed = values.exportAddress(defaultExport(provname));
      if (!isRefusal(parsed)) return parsed.value;
      this.problems.add(
        block.name.at,
        `export: the default is not possible: ${parsed.problem}`,
        'add `export ADDRESS` or a shorter `name` to the resource',
      );
      return undefined;
    }
    const address = inForce('export', scopes, values.exportAddress);
    if (address?.kind === 'tcp' && !insecure && !isLoopback(address)) {
      this.problems.add(
        setting.value.at,
        `export: ${address.text} lets everybody read and write who can reach it`,
        'use a UNIX socket or an address of this host only, or write `export-insecure on`',
      );
    }
    return address;
  }

  /** What is wrong only when seen together. */
  compare(config: Omit<Config, 'warnings'>): void {
    this.compareNames();
    const good = config.resources.filter(
      ({ name }, index, all) => all.findIndex((other) => other.name === name) === index,
    );
    good.forEach((resource, index) => {
      const before = good.slice(0, index);
      const { provname, local } = resource;
      this.clash(
        'name',
        provname,
        resource,
        before.find((other) => other.provname === provname),
      );
      const path = posix.normalize(local);
      const sameLocal = before.find((other) => posix.normalize(other.local) === path);
      this.clash('local', local, resource, sameLocal);
      const sameExport = before.find((other) => meet(other.export, resource.export));
      // Equal names make equal default exports: that is one mistake.
      if (sameExport?.provname !== provname || resource.export.text !== defaultExport(provname)) {
        this.clash('export', resource.export.text, resource, sameExport);
      }
      this.compareWithNode(resource, config.control, config.listen);
    });
  }

  clash(keyword: Keyword, text: string, mine: Resource, other: Resource | undefined): void {
    if (other === undefined) return;
    this.problems.add(
      mine.position,
      `${keyword}: ${text} of resource ${mine.name} is that of resource ${other.name} already`,
      `resource ${other.name} is in line ${other.position.line}; give one of them another one`,
    );
  }

  compareNames(): void {
    const first = new Map<string, ResourceBlock>();
    for (const block of this.tree.body) {
      if (block.kind !== 'resource') continue;
      const other = first.get(block.name.text);
      if (other === undefined) first.set(block.name.text, block);
      else {
        this.problems.add(
          block.name.at,
          `resource ${block.name.text} is configured twice`,
          `the other one is in line ${other.at.line}; remove or rename one`,
        );
      }
    }
  }

  compareWithNode(resource: Resource, control: UdsAddress, listen: readonly TcpAddress[]): void {
    if (sameAddress(resource.export, control)) {
      this.problems.add(
        resource.position,
        `export: ${resource.export.text} of resource ${resource.name} is the control socket`,
        'give it another path',
      );
    }
    if (listen.some((address) => meet(address, resource.export))) {
      this.problems.add(
        resource.position,
        `export: ${resource.export.text} of resource ${resource.name} is a listen address`,
        'give it another port',
      );
    }
    const { remote } = resource;
    if (remote !== 'none' && listen.some((address) => sameAddress(address, remote))) {
      this.warn(resource.position, `remote ${remote.text} of ${resource.name} is this node itself`);
    }
  }
}

/** Whether two sockets cannot both listen. */
function meet(a: Address, b: Address): boolean {
  if (sameAddress(a, b)) return true;
  return a.kind === 'tcp' && b.kind === 'tcp' && (covers(a, b) || covers(b, a));
}

/**
 * Resolves a parsed file for one host: own node blocks, inheritance, defaults. Pure.
 *
 * @param names  every name this host answers to, most specific first (see node-names.ts)
 * @returns resources in file order, for this host only
 * @throws HastError CONFIG_MEANING with all problems found; CONFIG_NETWORK when there is nothing to
 *   listen on
 */
export function resolve(
  tree: ConfigTree,
  names: readonly string[],
  overrides: Overrides = {},
): Config {
  return new Resolution(tree, names, overrides).run();
}
