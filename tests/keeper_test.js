'use strict';
// What runner/keeper.js repairs in the keeper on another machine, on NNI's real class.
// Run by tests/test_machines.py with NODE_PATH = nni_node, HOME = a temporary folder.

const assert = require('assert/strict');
const net = require('net');
const test = require('node:test');

require('../runner/keeper.js');
global.nniUnitTest = true;
require('common/globals/unittest');
const { WsChannelClient } = require('common/command_channel/websocket/client');

async function visitorsOf(action) {
    let visitors = 0;
    const server = net.createServer(socket => { visitors += 1; socket.destroy(); });
    await new Promise(resolve => { server.listen(0, resolve); });
    const client = new WsChannelClient('keeper', `ws://127.0.0.1:${server.address().port}/key`);
    const errors = [];
    client.onError(error => errors.push(error.message));
    await action(client).catch(error => errors.push(error.message));
    server.close();
    return { visitors, errors };
}

test('a keeper connects to its tunnel', async () => {
    assert.equal((await visitorsOf(client => client.connect())).visitors, 1);
});

test('a keeper does not connect again: somebody else may listen there by now', async () => {
    assert.deepEqual(await visitorsOf(client => client.reconnect()), { visitors: 0, errors: ['Connection lost'] });
});

test('a keeper that comes up after its tunnel is gone connects to nobody', async () => {
    const client = new WsChannelClient('keeper', 'ws://127.0.0.1:9/key');
    await assert.rejects(client.connect(), /the tunnel to the manager is gone/);
});
