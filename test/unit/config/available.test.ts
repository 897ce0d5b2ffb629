import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { partlyAvailable, refuseUnavailable } from '../../../src/config/available.ts';
import { parse } from '../../../src/config/parse.ts';
import { resolve } from '../../../src/config/resolve.ts';
import { HastError } from '../../../src/error.ts';

const available = suite('what this version cannot do');

function config(statement: string) {
  const text = `resource data { ${statement} on here { local /tmp/x remote none } }`;
  return resolve(parse(text, 'hast.conf'), ['here'], { families: { ipv4: true, ipv6: false } });
}

available('a kernel device that would be missing is refused', () => {
  assert.throws(
    () => refuseUnavailable(config('device ggate')),
    (error: unknown) =>
      error instanceof HastError &&
      error.code === 'CONFIG_MEANING' &&
      /NBD export/.test(error.message),
  );
});

available('everything else passes, and start last is explained', () => {
  refuseUnavailable(config('device auto'));
  refuseUnavailable(config('device nbd'));
  refuseUnavailable(config('device ublk'));
  refuseUnavailable(config('device none secret none'));
  refuseUnavailable(config('secret /etc/hast/data.key'));
  assert.is(partlyAvailable(config('start last')).length, 1);
  assert.is(partlyAvailable(config('start secondary')).length, 0);
});

available.run();
