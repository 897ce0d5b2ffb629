import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { TcpAddress } from '../../../src/config/config.ts';
import { isAmong, plainIp, Resolver } from '../../../src/peer/resolver.ts';
import { withDeadline } from '../../helper/deadline.ts';

const resolver = suite('resolver');

function address(host: string, family: TcpAddress['family'] = 'any'): TcpAddress {
  return { kind: 'tcp', text: host, family, host, port: 8457 };
}
const V4 = { host: '192.0.2.1', port: 8457, family: 4 } as const;
const V6 = { host: '2001:db8::1', port: 8457, family: 6 } as const;

resolver('addresses compare by their bytes', () => {
  assert.is(isAmong('192.0.2.1', [V4]), true);
  assert.is(isAmong('::ffff:192.0.2.1', [V4]), true);
  assert.is(isAmong('2001:0db8:0::1', [V6]), true);
  assert.is(isAmong('2001:db8::1%eth0', [V6]), true);
  assert.is(isAmong('192.0.2.2', [V4, V6]), false);
  assert.is(isAmong('192.0.2.1', []), false);
  assert.is(isAmong('', [V4]), false);
  assert.is(plainIp('::FFFF:192.0.2.1'), '192.0.2.1');
});

resolver('a literal needs no lookup', async () => {
  const none = new Resolver(
    () => Promise.reject(new Error('asked')),
    () => assert.unreachable(),
  );
  assert.equal(await none.refresh(address('192.0.2.1', 'ipv4')), [V4]);
});

resolver(
  'all addresses of a name count, and stay when a later lookup fails',
  withDeadline(5000, async () => {
    let answer: Promise<{ address: string; family: number }[]> = Promise.resolve([
      { address: V4.host, family: 4 },
      { address: V6.host, family: 6 },
    ]);
    let asked = 0;
    const names = new Resolver(
      () => {
        asked += 1;
        return answer;
      },
      () => {},
    );
    assert.equal(names.current(address('peer')), []);
    await Promise.all([names.refresh(address('peer')), names.refresh(address('peer'))]);
    assert.is(asked, 1);
    answer = Promise.reject(new Error('down'));
    answer.catch(() => {});
    assert.equal(await names.refresh(address('peer')), [V4, V6]);
    assert.is(asked, 1); // not again so soon
  }),
);

resolver.run();
