'use strict';
// The repairs of runner/remote.js on NNI's real classes, with machines that do what each test needs.
// Run by tests/test_machines.py with NODE_PATH = nni_node, HOME = a temporary folder, HPO_EVENTS and HPO_REMOTE = files.

const assert = require('assert/strict');
const fs = require('fs');
const net = require('net');
const test = require('node:test');
const { Duplex } = require('stream');
const { setTimeout: sleep } = require('timers/promises');

const { Client, Server, utils } = require('node_modules/ssh2/lib/index');
const { HPO_EVENTS, HPO_REMOTE } = process.env;
const CONFIGS = ['lab1', 'lab2'].map(host => ({ host, port: 22, user: 'ada' }));
const settings = { host_keys: [['ssh-ed25519', 'AAAA']], command: 'python main_hpo.py --data-dir /data', environ: {} };
const keys = ['known', 'changed'].map(() => utils.generateKeyPairSync('ed25519'));
const hosts = Object.fromEntries(['known', 'changed'].map((host, number) => {
    const [type, key] = keys[number].public.split(' ');
    return [`${host}:22`, { ...settings, host_keys: [[type, key]] }];
}));
fs.writeFileSync(HPO_REMOTE, JSON.stringify({ 'lab1:22': settings, 'lab2:22': settings, ...hosts }));
require('../runner/preload.js');
global.nniUnitTest = true;
require('common/globals/unittest');
require('core/nnimanager');
const { V3asV1 } = require('training_service/v3/compat');
const { Worker } = require('training_service/remote_v3/worker');
const { Ssh } = require('training_service/remote_v3/ssh');
const { forward } = require('../runner/remote.js');

let broken = new Set(); // hosts that do not come up
const created = []; // [host, command, id]

// What a machine's keeper answers: everything at once, or nothing where `mute`.
Worker.prototype.start = async function () {
    if (broken.has(this.config.host)) {
        throw new Error('no route to host');
    }
    const { host } = this.config;
    this.uploadDir = '/home/ada/upload';
    this.ssh.client = { end() {} };
    this.ssh.upload = async () => {};
    Object.assign(this.trialKeeper, {
        unpackDirectory: async () => {},
        createTrial: async ({ id, command }) => {
            created.push([host, command, id]);
            if (this.mute) {
                return new Promise(() => {});
            }
            this.trialKeeper.emitTrialStart(id, 0); // by a clock that is decades late
            return true;
        },
    });
};
require('common/tarball').createTarball = async () => '/tmp/none.tgz';

async function startService() {
    const config = { platform: 'remote', machineList: CONFIGS, nniManagerIp: '127.0.0.1' };
    const service = new V3asV1({ ...config, trialCommand: 'wrong', trialCodeDirectory: '.' });
    service.v3.server.start = async () => {};
    await service.start();
    return service;
}

function form(number) {
    const value = JSON.stringify({ parameter_id: number, parameters: { x: number } });
    return { sequenceId: number, hyperParameters: { value, index: 0 } };
}

function events(select) {
    const lines = fs.readFileSync(HPO_EVENTS, 'utf8').trim().split('\n').map(line => JSON.parse(line));
    return lines.filter(select);
}

function workerAt(service, host) {
    return service.v3.workers.find(worker => worker.config.host === host);
}

test('a machine that does not come up does not keep the others from it', async () => {
    broken = new Set(['lab1']);
    const service = await startService();
    broken = new Set();
    assert.equal((await service.submitTrialJob(form(12))).envId, workerAt(service, 'lab2').envId);
    const [failed] = events(({ event, state }) => event === 'machine' && state === 'failed');
    assert.deepEqual([failed.machine, failed.reason], ['lab1:22', 'no route to host']);
});

test('trials are spread, each with the command of its machine, and times are ours', async () => {
    const service = await startService();
    const trials = await Promise.all([1, 2, 3, 4].map(number => service.submitTrialJob(form(number))));
    const ids = new Set(trials.map(({ id }) => id));
    const own = created.filter(([, , id]) => ids.has(id));
    assert.deepEqual(own.map(([host]) => host).sort(), ['lab1', 'lab1', 'lab2', 'lab2']);
    assert.ok(own.every(([, command]) => command === settings.command));
    const starts = events(({ event, trial }) => event === 'start' && ids.has(trial));
    assert.deepEqual(starts.map(({ machine }) => machine).sort(), ['lab1:22', 'lab1:22', 'lab2:22', 'lab2:22']);
    assert.ok(starts.every(({ time }) => Math.abs(time - Date.now() / 1000) < 60));
});

test('a lost machine costs what runs there, once, and is called again', async () => {
    const service = await startService();
    const [a, b] = await Promise.all([5, 6].map(number => service.submitTrialJob(form(number))));
    const [done, running] = [a, b].map(({ id }) => id);
    const lab = id => created.find(([, , other]) => other === id)[0];
    const worker = workerAt(service, lab(done));
    worker.trialKeeper.emitTrialStop(done, 0, 0); // its files cannot be fetched; it has ended well all the same
    const third = await service.submitTrialJob(form(7));
    const fourth = await service.submitTrialJob(form(8));
    await sleep(50);
    service.v3.restartWorker(worker);
    service.v3.restartWorker(worker); // both by the closed connection and by the closed channel
    await sleep(50);
    const ends = events(({ event }) => event === 'end');
    const lost = [third, fourth].map(({ id }) => id).filter(id => lab(id) === worker.config.host);
    assert.equal(lost.length, 1);
    assert.deepEqual(ends.filter(({ trial }) => trial === done).map(({ status }) => status), ['SUCCEEDED']);
    assert.deepEqual(ends.filter(({ trial }) => trial === lost[0]).map(({ cause }) => cause), ['machine_lost']);
    assert.equal(ends.filter(({ trial }) => trial === running).length, 0);
    assert.equal(service.trialJobs[done].status, 'SUCCEEDED');
    const moved = await service.submitTrialJob(form(9)); // the other machine takes what comes
    assert.notEqual(lab(moved.id), worker.config.host);
    await sleep(3500);
    assert.ok(workerAt(service, worker.config.host));
    const states = events(({ event, machine }) => event === 'machine' && machine === `${worker.config.host}:22`);
    assert.deepEqual(states.slice(-2).map(({ state }) => state), ['lost', 'up']);
});

test('a trial that was being created on a machine that is lost starts on another with its id', async () => {
    const service = await startService();
    const mute = workerAt(service, 'lab1');
    mute.mute = true;
    const [one, two] = [10, 11].map(number => service.submitTrialJob(form(number)));
    await sleep(100);
    service.v3.restartWorker(mute);
    const ids = (await Promise.all([one, two])).map(({ id }) => id);
    for (const id of ids) {
        assert.equal(created.filter(([host, , other]) => host === 'lab2' && other === id).length, 1);
    }
    assert.deepEqual(events(({ event, trial }) => event === 'end' && ids.includes(trial)), []);
});

test('a trial that a signal has ended has no exit code, but its signal', async () => {
    const service = await startService();
    const { id } = await service.submitTrialJob(form(13));
    service.v3.workers[0].trialKeeper.emitTrialStop(id, 0, -9);
    await sleep(50);
    const [end] = events(({ event, trial }) => event === 'end' && trial === id);
    assert.deepEqual([end.exit_code, end.signal, end.status], [null, 'SIGKILL', 'FAILED']);
});

test('NNI installs nothing, and another version of it is refused', async () => {
    const ssh = new Ssh('1', CONFIGS[0]);
    ssh.client = { exec: () => assert.fail('a command was sent') };
    assert.equal((await ssh.exec('python -m pip install nni --upgrade')).code, 0);
    ssh.client = {
        exec: (_command, callback) => {
            const stream = new Duplex({ read() {}, write() {} });
            stream.stderr = stream;
            callback(undefined, stream);
            stream.emit('data', '2.10\n');
            stream.emit('close', 0);
        },
    };
    await assert.rejects(ssh.exec('python -c "import nni ; print(nni.__version__)"'), /NNI 3.0 is needed there, not 2.10/);
});

// A server with the first of the keys; the second host is known by the other one.
async function login(host) {
    const seen = [];
    const server = new Server({ hostKeys: [keys[0].private] }, connection => {
        connection.on('authentication', attempt => { seen.push(attempt.username); attempt.accept(); });
        connection.on('error', () => {});
    });
    await new Promise(resolve => { server.listen(0, '127.0.0.1', resolve); });
    const client = new Client();
    const sock = net.connect(server.address().port, '127.0.0.1');
    client.connect({ host, port: 22, username: 'ada', sock });
    const outcome = await new Promise(resolve => {
        client.on('ready', () => resolve('ready'));
        client.on('error', error => resolve(error.message));
    });
    client.end();
    server.close();
    return { seen, outcome };
}

test('a machine with the known host key is logged in to', async () => {
    assert.deepEqual(await login('known'), { seen: ['ada'], outcome: 'ready' });
});

test('a machine with another host key gets not even the name of the user', async () => {
    const { seen, outcome } = await login('changed');
    assert.deepEqual(seen, []);
    assert.match(outcome, /verification failed/);
});

const KEY = '/0123';
const OWN = '/secret/platform/remote/1'; // the manager's address
const UPGRADE = `GET ${KEY} HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n`;

async function through(request) {
    let seen = '';
    const server = net.createServer(socket => socket.on('data', data => {
        seen += data;
        socket.write('answer');
    }));
    await new Promise(resolve => { server.listen(0, '127.0.0.1', resolve); });
    let answer = '';
    let closed = false;
    const stream = new Duplex({ read() {}, write(data, _encoding, done) { answer += data; done(); } });
    stream.close = () => { closed = true; stream.destroy(); };
    forward(stream, KEY, { pathname: OWN, port: server.address().port });
    for (const part of request) {
        stream.push(part);
        await sleep(20);
    }
    await sleep(50);
    stream.destroy();
    server.close();
    return { seen, answer, closed };
}

for (const parts of [[UPGRADE], [UPGRADE.slice(0, 20), UPGRADE.slice(20)], [UPGRADE, 'frame']]) {
    test(`the tunnel lets its keeper through, in ${parts.length} parts`, async () => {
        const { seen, answer, closed } = await through(parts);
        assert.equal(seen, parts.join('').replace(KEY, OWN));
        assert.ok(answer.startsWith('answer'));
        assert.equal(closed, false);
    });
}

for (const request of [
    'GET /api/v1/nni/experiment HTTP/1.1\r\nHost: x\r\n\r\n',
    UPGRADE.replace('0123', '0124'),
    UPGRADE.replace('GET', 'PUT'),
    UPGRADE.replace('Upgrade: websocket\r\n', ''),
    UPGRADE.replace(KEY, `${KEY}/../api/v1/nni/experiment`),
    UPGRADE.replace(KEY, OWN),
    `GET ${KEY} HTTP/1.1\r\nX: ${'x'.repeat(9000)}`,
]) {
    test(`the tunnel lets nobody else through: ${JSON.stringify(request.slice(0, 60))}`, async () => {
        assert.deepEqual(await through([request]), { seen: '', answer: '', closed: true });
    });
}
