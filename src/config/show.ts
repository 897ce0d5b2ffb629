import type { Config, Resource } from './config.ts';

function onOff(value: boolean): string {
  return value ? 'on' : 'off';
}

function resourceLines(resource: Resource): readonly string[] {
  const { name, provname, node, local, remote, source, exportOwner, sectorSize } = resource;
  return [
    '',
    `resource ${name} {`,
    `\tname ${provname}`,
    `\tlocal ${local}`,
    `\treplication ${resource.replication}`,
    `\tchecksum ${resource.checksum}`,
    `\tcompression ${resource.compression}`,
    `\ttimeout ${resource.timeoutSeconds}`,
    `\texec ${resource.exec ?? 'none'}`,
    `\tmetaflush ${onOff(resource.metaflush)}`,
    `\texport ${resource.export.text}`,
    `\texport-insecure ${onOff(resource.exportInsecure)}`,
    ...(exportOwner === null ? [] : [`\texport-owner ${exportOwner}`]),
    `\tdevice ${resource.device}`,
    `\tstart ${resource.start}`,
    `\tdemotion ${resource.demotion}`,
    `\tevents ${resource.events}`,
    `\tsecret ${resource.secret ?? 'none'}`,
    ...(sectorSize === null ? [] : [`\tsectorsize ${sectorSize}`]),
    `\ton ${node} {`,
    `\t\tremote ${remote === 'none' ? 'none' : remote.text}`,
    ...(source === null ? [] : [`\t\tsource ${source.text}`]),
    '\t}',
    '}',
  ];
}

/**
 * A resolved configuration in the language of hast.conf(5): every value that is in force, defaults
 * too, and nothing of other nodes. Read again on the same host it gives the same configuration.
 */
export function formatConfig(config: Config): string {
  const lines = [
    `control ${config.control.text}`,
    `pidfile ${config.pidfile}`,
    ...config.listen.map(({ text }) => `listen ${text}`),
    `user ${config.user}`,
    `statedir ${config.statedir}`,
    `devdir ${config.devdir}`,
    ...config.resources.flatMap(resourceLines),
  ];
  return `${lines.join('\n')}\n`;
}

/** The same as JSON, without the places in the file. */
export function formatConfigJson(config: Config): string {
  const plain = (key: string, value: unknown): unknown =>
    key === 'position' || key === 'warnings' ? undefined : value;
  return `${JSON.stringify(config, plain, 2)}\n`;
}
