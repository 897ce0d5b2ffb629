// Reads our own sources: the floors, the source list, line lengths, words that must not be there.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { disagreements, silentStatements } from '../scripts/mutants/guards.ts';
import { titlesOf } from './helper/titles.ts';

const ROOT = new URL('..', import.meta.url).pathname;
const GENERATED = ['src/error-codes.ts', 'src/config/grammar.js', 'src/config/grammar.d.ts'];

// ---- Floors: C++ --------------------------------------------------------------------------
// A folder may include itself and the folders named here. Stream and Listener live in ring/, so
// that gate/ and wire/ need not know each other.
const CXX_MAY_INCLUDE: Readonly<Record<string, readonly string[]>> = {
  base: [],
  codec: ['base'],
  ring: ['base'],
  disk: ['base', 'ring'],
  wire: ['base', 'codec', 'ring'],
  gate: ['base', 'ring'],
  kernel: ['base', 'ring'],
  engine: ['base', 'codec', 'ring', 'disk', 'wire', 'gate'],
  binding: ['base', 'codec', 'engine', 'kernel'],
};

// Foreign headers with one home.
const CXX_HOME: readonly (readonly [header: RegExp, home: RegExp])[] = [
  [/^liburing\.h$/, /^src-native\/ring\//],
  [/^(napi|node_api|js_native_api)\.h$/, /^src-native\/binding\//],
  [/^linux\/nbd.*\.h$/, /^src-native\/(gate|kernel)\/nbd/],
  [/^linux\/ublk_cmd\.h$/, /^src-native\/(gate|kernel)\/ublk/],
];

// ---- Floors: TypeScript -------------------------------------------------------------------
// The first row that fits a file decides what it is and what of ours it may import.
interface Room {
  readonly name: string;
  readonly files: RegExp;
  readonly may: readonly string[];
}

const GROUND = ['ground'];
const PURE = ['ground', 'config', 'nv', 'protocol', 'role'];
const LOW = [...PURE, 'native', 'log'];

const TS_ROOMS: readonly Room[] = [
  {
    name: 'ground',
    files: /^src\/(error|error-codes|exit|units|limits|crc32c|signals)\.ts$/,
    may: GROUND,
  },
  { name: 'config', files: /^src\/config\//, may: [...GROUND, 'config'] },
  { name: 'nv', files: /^src\/(nv|metadata)\.ts$/, may: [...GROUND, 'nv'] },
  { name: 'protocol', files: /^src\/control\/protocol\.ts$/, may: GROUND },
  { name: 'role', files: /^src\/resource\/role\.ts$/, may: GROUND },
  { name: 'native', files: /^src\/native\.ts$/, may: GROUND },
  { name: 'log', files: /^src\/log\.ts$/, may: [...GROUND, 'native'] },
  { name: 'resource', files: /^src\/resource\//, may: [...LOW, 'resource'] },
  { name: 'peer', files: /^src\/peer\//, may: [...LOW, 'peer'] },
  { name: 'client', files: /^src\/control\/client\.ts$/, may: LOW },
  { name: 'control', files: /^src\/control\//, may: [...LOW, 'control'] },
  { name: 'ctl', files: /^src\/ctl\//, may: [...LOW, 'client', 'ctl'] },
  { name: 'bin', files: /^src\/bin\//, may: [...LOW, 'client', 'ctl', 'daemon', 'bin'] },
  // daemon.ts and whatever helps it to join the rest
  {
    name: 'daemon',
    files: /^src\/[^/]+\.ts$/,
    may: [...LOW, 'resource', 'peer', 'client', 'control', 'daemon'],
  },
];

// ---- Words ---------------------------------------------------------------------------------
// Put together here, so that this file may be read by itself.
interface Banned {
  readonly word: RegExp;
  readonly why: string;
  readonly except: RegExp;
}

const NOWHERE = /^$/;
const BANNED: readonly Banned[] = [
  {
    word: new RegExp(`(^|[^\\w.$])/(${['work', 'home', 'root', 'Users'].join('|')})/`),
    why: 'a path of one machine',
    except: /^test\/(golden|vectors)\//,
  },
  { word: new RegExp(['TO', 'DO|FIX', 'ME|X', 'XX'].join('')), why: 'a note', except: NOWHERE },
  {
    word: new RegExp(['\\bconsole', '\\.\\w'].join('')),
    why: 'printing outside its home',
    except: /^(src\/ctl\/output\.ts|src\/log\.ts|scripts\/|bench\/)/,
  },
  {
    word: new RegExp(['\\bprocess\\.(exit', '\\(|exitCode\\s*=)'].join('')),
    why: 'exit codes are set in bin/ only',
    except: /^(src\/bin\/|src\/resource\/worker-main\.ts|scripts\/|bench\/|test\/)/,
  },
];

// ---- Reading -------------------------------------------------------------------------------

function filesUnder(folder: string, ending: RegExp): string[] {
  if (!existsSync(join(ROOT, folder))) return [];
  return readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && ending.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name).slice(ROOT.length))
    .filter((file) => !GENERATED.includes(file))
    .sort();
}

function linesOf(file: string): string[] {
  return readFileSync(join(ROOT, file), 'utf8').split('\n');
}

const cxx = filesUnder('src-native', /\.(cc|h|def)$/);
const typescript = filesUnder('src', /\.ts$/);
const code = [
  ...cxx,
  ...typescript,
  ...filesUnder('src', /\.peggy$/),
  ...filesUnder('test', /\.(ts|cc|h|sh|py)$/),
  ...filesUnder('bench', /\.(ts|cc|h|sh|py)$/),
  ...filesUnder('scripts', /^[^.]+$|\.(ts|sh|py)$/),
  'CMakeLists.txt',
];

/** All complaints at once: one run shows everything there is to do. */
function expectNone(complaints: readonly string[]): void {
  assert.is(complaints.length, 0, `\n${complaints.join('\n')}`);
}

// ---- Tests ---------------------------------------------------------------------------------

const tidy = suite('tidy');

tidy('C++ folders include only the floors below them', () => {
  const complaints: string[] = [];
  for (const file of cxx) {
    const room = file.split('/')[1] ?? '';
    const may = CXX_MAY_INCLUDE[room];
    if (may === undefined) {
      complaints.push(`${file}: ${room}/ is not a folder with a floor`);
      continue;
    }
    for (const [index, line] of linesOf(file).entries()) {
      const ours = /^\s*#\s*include\s+"([^"]+)"/.exec(line)?.[1];
      if (ours === undefined) continue;
      const other = ours.split('/')[0] ?? '';
      if (!ours.includes('/') || (other !== room && !may.includes(other))) {
        complaints.push(`${file}:${index + 1}: ${room}/ may not include "${ours}"`);
      }
    }
  }
  expectNone(complaints);
});

tidy('foreign headers stay at their home', () => {
  const complaints: string[] = [];
  for (const file of cxx) {
    for (const [index, line] of linesOf(file).entries()) {
      const header = /^\s*#\s*include\s+[<"]([^>"]+)[>"]/.exec(line)?.[1] ?? '';
      for (const [name, home] of CXX_HOME) {
        if (name.test(header) && !home.test(file)) {
          complaints.push(`${file}:${index + 1}: ${header} belongs to ${home.source}`);
        }
      }
    }
  }
  expectNone(complaints);
});

tidy('TypeScript imports only the floors below', () => {
  const roomOf = (file: string) => TS_ROOMS.find(({ files }) => files.test(file));
  const complaints: string[] = [];
  for (const file of typescript) {
    const room = roomOf(file);
    if (room === undefined) {
      complaints.push(`${file}: is in no room with a floor`);
      continue;
    }
    const text = linesOf(file).join('\n');
    for (const match of text.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*'(\.[^']+)'/g)) {
      const target = normalize(join(dirname(file), match[1] ?? ''));
      const other = roomOf(target);
      if (other === undefined || (other.name !== room.name && !room.may.includes(other.name))) {
        complaints.push(`${file}: ${room.name} may not import ${target}`);
      }
    }
  }
  expectNone(complaints);
});

tidy('native.gypi lists exactly the sources there are', () => {
  const { variables } = JSON.parse(linesOf('src-native/native.gypi').join('\n'));
  const listed: string[] = [...variables.hast_core_sources, ...variables.hast_addon_sources];
  const there = cxx.filter((file) => file.endsWith('.cc'));
  expectNone([
    ...there.filter((file) => !listed.includes(file)).map((file) => `${file}: is not in the list`),
    ...listed.filter((file) => !there.includes(file)).map((file) => `${file}: is not in the tree`),
    ...listed
      .filter((file, i) => listed.indexOf(file) !== i)
      .map((file) => `${file}: is there twice`),
    ...variables.hast_core_sources
      .filter((file: string) => file.startsWith('src-native/binding/'))
      .map((file: string) => `${file}: belongs to the addon, not to the core`),
  ]);
});

tidy('what protects data says which guard it is, or why it is none', () => {
  expectNone(
    silentStatements().map(
      ({ file, line, text }) => `${file}:${line}: neither guard:NAME nor "no guard: why": ${text}`,
    ),
  );
});

tidy('every guard has one mutation, and every mutation its guard', () => {
  expectNone(disagreements());
});

tidy('lines have at most 100 characters', () => {
  const complaints: string[] = [];
  for (const file of code) {
    for (const [index, line] of linesOf(file).entries()) {
      const size = [...line].length;
      if (size > 100) complaints.push(`${file}:${index + 1}: ${size} characters`);
    }
  }
  expectNone(complaints);
});

tidy('banned words are nowhere', () => {
  const complaints: string[] = [];
  for (const file of code) {
    for (const { word, why, except } of BANNED) {
      if (except.test(file)) continue;
      for (const [index, line] of linesOf(file).entries()) {
        if (word.test(line)) complaints.push(`${file}:${index + 1}: ${why}: ${line.trim()}`);
      }
    }
  }
  expectNone(complaints);
});

/** Titles of all tests that `files` match. */
function titlesUnder(files: RegExp): readonly RegExp[] {
  return filesUnder('test', files).flatMap((file) => titlesOf(file) ?? []);
}

/** Lines of the tables of a page, without heads and rules. */
function rowsOf(page: string): { readonly at: string; readonly cells: readonly string[] }[] {
  return linesOf(page).flatMap((line, index, lines) => {
    const isRow = line.startsWith('|') && !line.startsWith('|-');
    if (!isRow || lines[index + 1]?.startsWith('|-')) return [];
    const cells = line.split('|').slice(1, -1);
    return [{ at: `${page}:${index + 1}`, cells: cells.map((cell) => cell.trim()) }];
  });
}

function quotedIn(text: string): string[] {
  return [...text.matchAll(/"([^"]+)"/g)].map(([, name = '']) => name);
}

/** Every name in quotes, in the cells that `choose` gives, is the title of a test. */
function expectTitles(page: string, tests: readonly RegExp[], choose: (cell: number) => boolean) {
  assert.ok(tests.length > 100);
  expectNone(
    rowsOf(page).flatMap(({ at, cells }) =>
      cells
        .filter((_, cell) => choose(cell))
        .flatMap(quotedIn)
        .filter((name) => !tests.some((title) => title.test(name)))
        .map((name) => `${at}: there is no test "${name}"`),
    ),
  );
}

tidy('docs/scenarios.md names only tests that exist', () => {
  expectTitles('docs/scenarios.md', titlesUnder(/_test\.cc$/), () => true);
});

tidy('docs/failover.md names only tests that exist', () => {
  const tests = titlesUnder(/([.-]tests?\.ts|_test\.cc)$/);
  expectTitles('docs/failover.md', tests, (cell) => cell === 2);
});

/** What is wrong with the proof of a row: `file` "title", "title"; `file` "title". */
function complaintsAbout(proof: string): string[] {
  const cited = [...proof.matchAll(/`([^`]+)`((?:[ ,]*"[^"]+")*)/g)];
  if (cited.length === 0) return ['no test'];
  return cited.flatMap(([, file = '', names = '']) => {
    if (file.startsWith('golden/')) {
      return existsSync(join(ROOT, 'test', `${file}.conf`))
        ? []
        : [`there is no test/${file}.conf`];
    }
    const tests = titlesOf(`test/${file}`);
    if (tests === undefined) return [`there is no test/${file}`];
    const titles = quotedIn(names);
    if (titles.length === 0) return [`no title of test/${file}`];
    return titles
      .filter((name) => !tests.some((title) => title.test(name)))
      .map((name) => `test/${file} has no test "${name}"`);
  });
}

tidy('docs/compatibility.md has a test for every statement, and only tests that exist', () => {
  const rows = rowsOf('docs/compatibility.md');
  assert.ok(rows.length > 100);
  expectNone(
    rows.flatMap(({ at, cells }) => complaintsAbout(cells.at(-1) ?? '').map((c) => `${at}: ${c}`)),
  );
});

tidy('the lock file names no registry host', () => {
  expectNone(linesOf('package-lock.json').filter((line) => line.includes('"resolved": "http')));
});

tidy.run();
