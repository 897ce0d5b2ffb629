/** The live view for a pipe: one line for a resource, for people and for grep alike; pure. */
import { shown } from '../shown.ts';
import type { Row } from './row.ts';

/** A value without blanks stands as it is, anything else as JSON has it. */
function value(text: string): string {
  return /^[\x21\x23-\x7e]+$/.test(text) ? text : JSON.stringify(shown(text));
}

function number(figure: number | null): string {
  return figure === null ? '-' : String(Math.round(figure));
}

/** Sizes in bytes, times in seconds; `-` where there is nothing to know. */
export function lineOf(time: string, row: Row): string {
  const { progress, reason } = row;
  const parts = [
    `role=${row.role}`,
    `peer=${row.peer.replaceAll(' ', '-')}`,
    `mode=${row.mode}`,
    `dirty=${number(row.dirty)}`,
    `left=${number(row.left)}`,
    `done=${progress === null ? '-' : `${Math.floor(progress * 100)}%`}`,
    `rate=${number(row.rate)}`,
    `eta=${number(row.seconds)}`,
    `queue=${number(row.queue)}`,
    ...(reason === '' ? [] : [`reason=${value(reason)}`]),
  ];
  return `${time} ${value(row.name)} ${parts.join(' ')}\n`;
}

/** What makes a line worth another one: not the figures that never stand still. */
export function gistOf({ role, peer, mode, left, progress, reason }: Row): string {
  return JSON.stringify([role, peer, mode, left, progress, reason]);
}

/** No resource is called so. */
const EVERYTHING = '*';

export function troubleLine(time: string, trouble: string): string {
  return `${time} ${EVERYTHING} peer=- reason=${value(trouble)}\n`;
}

/** The daemon has another configuration now. */
export function goneLine(time: string, name: string): string {
  return `${time} ${value(name)} peer=- reason="no longer configured"\n`;
}
