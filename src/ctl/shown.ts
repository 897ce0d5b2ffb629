/** Names and paths come from another process: they must not move the cursor or forge a line. */
export function shown(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, '?');
}
