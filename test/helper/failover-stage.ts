// A machine of paper for the failover scripts: a hastctl, a mount table and services that only note
// how they were called, in a folder that comes first in PATH.
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Ended, runProgram } from './pair.ts';

export const FAILOVER = fileURLToPath(new URL('../../scripts/failover/', import.meta.url));

/** `$d`: the folder. A file in it makes a program behave in another way. */
const PROGRAMS: Readonly<Record<string, string>> = {
  hastctl: `
[ ! -e "$d/dead" ] || exit 71
verb=$1; shift
case $verb in
  dump) sed 's/^/resource: /' "$d/resources" ;;
  list) echo "  role: $(cat "$d/role.$1" 2>/dev/null || echo init)" ;;
  status)
    [ "$1" != all ] || exit 0
    state=$(cat "$d/status" 2>/dev/null || echo complete)
    printf '%s\\t%s primary /dev/x\\ttcp4://y\\n' "$1" "$state" ;;
  role)
    note "$verb $*"
    [ "$1" != -f ] || { rm -f "$d/refuse.$2"; shift; }
    [ ! -e "$d/hang.$1" ] || exec sleep 600
    [ ! -e "$d/slow" ] || sleep 0.5
    [ ! -e "$d/refuse.$1" ] || exit 5
    echo "$1" > "$d/role.$2"
    note "taken $1 $2" ;;
esac`,
  mount: `
touch "$d/mounts"
[ $# -gt 0 ] || { cat "$d/mounts"; exit; }
note "mount $*"
while [ $# -gt 2 ]; do shift; done
[ ! -e "$d/bad$2" ] || exit 32
echo "$1 on $2 type ext4 (rw)" >> "$d/mounts"`,
  umount: `
note "umount $*"
[ ! -e "$d/hang.umount" ] || exec sleep 600
[ $# = 2 ] || [ ! -e "$d/busy" ] || exit 32
while [ $# -gt 1 ]; do shift; done
grep -v -F " on $1 " "$d/mounts" > "$d/mounts.new"; mv "$d/mounts.new" "$d/mounts"`,
  fsck: `note "fsck $*"; [ ! -e "$d/hang.fsck" ] || exec sleep 600
exit "$(cat "$d/fsck.exit" 2>/dev/null || echo 0)"`,
  pgrep: '[ -e "$d/secondary-worker" ]',
  fuser: 'note "fuser $*"',
  blkid: 'echo ext4',
  logger: ':',
  service: `note "service $*"; [ ! -e "$d/hang.service" ] || exec sleep 600`,
  adapter: `note "adapter $*"; [ "$1" != up ] || echo "/dev/fake/$2"`,
  fence: `note "fence $*"; [ ! -e "$d/fence.fails" ]`,
  ip: `[ "$1" != -o ] || { cat "$d/addresses" | while read -r a; do
  echo "2: eth0    inet $a/24 scope global eth0"; done; exit; }
note "ip $*"`,
  ucarp: 'note "ucarp $*"',
};

export class Stage {
  readonly directory: string;

  constructor(directory: string, resources: readonly string[] = ['data'], more = '') {
    this.directory = directory;
    mkdirSync(`${directory}/bin`);
    for (const [name, text] of Object.entries(PROGRAMS)) this.program(name, text);
    this.set('resources', `${resources.join('\n')}\n`);
    const lines = resources.map((name) => `${name} ${this.mountPoint(name)} ext4 noatime`);
    this.set(
      'conf',
      `filesystems='\n${lines.join('\n')}\n'
services='first second'
service_command=${directory}/bin/service
adapter=${directory}/bin/adapter
run_directory=${directory}/run
promote_delay=0
${more}
`,
    );
  }

  mountPoint(name: string): string {
    return `${this.directory}/mnt/${name}`;
  }

  program(name: string, text: string): void {
    const path = `${this.directory}/bin/${name}`;
    const head = `#!/bin/sh\nd=${this.directory}\nnote() { echo "$*" >> "$d/calls"; }\n`;
    writeFileSync(path, `${head}${text}\n`);
    chmodSync(path, 0o755);
  }

  set(name: string, text = ''): void {
    writeFileSync(`${this.directory}/${name}`, text);
  }
  unset(name: string): void {
    rmSync(`${this.directory}/${name}`, { force: true });
  }

  /** What was called since the last time. */
  calls(): string[] {
    const path = `${this.directory}/calls`;
    const calls = existsSync(path) ? readFileSync(path, 'utf8').split('\n').slice(0, -1) : [];
    rmSync(path, { force: true });
    return calls.map((line) => line.replaceAll(`${this.directory}/`, ''));
  }

  has(call: string): boolean {
    const path = `${this.directory}/calls`;
    return existsSync(path) && readFileSync(path, 'utf8').includes(call);
  }

  async run(script: string, ...args: readonly string[]): Promise<Ended> {
    const { directory } = this;
    const environment = [`PATH=${directory}/bin:/usr/bin:/bin`];
    environment.push(`HAST_FAILOVER_CONF=${directory}/conf`);
    const all = ['-i', ...environment, `${FAILOVER}${script}`, ...args];
    return await runProgram('/usr/bin/env', all, AbortSignal.timeout(60_000));
  }

  switch(...args: readonly string[]): Promise<Ended> {
    return this.run('carp-hast-switch', ...args);
  }
}
