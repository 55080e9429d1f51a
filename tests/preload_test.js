'use strict';
// The repairs of runner/preload.js on NNI's real classes, above a training service that does what each test needs.
// Run by tests/test_manager.py with NODE_PATH = nni_node, HOME = a temporary folder, HPO_EVENTS = a file.

const assert = require('assert/strict');
const { execFileSync } = require('child_process');
const fs = require('fs');
const http = require('http');
const net = require('net');
const test = require('node:test');
const { setTimeout: sleep } = require('timers/promises');

const eventsFile = process.env.HPO_EVENTS;
const SECRET = process.env.HPO_SECRET;
require('../runner/preload.js');
global.nniUnitTest = true;
require('common/globals/unittest');
const { NNIManager } = require('core/nnimanager');
const { V3asV1 } = require('training_service/v3/compat');
const { NNITensorboardManager } = require('extensions/nniTensorboardManager');
const { TaskScheduler, UnitTestHelpers } = require('common/trial_keeper/task_scheduler/scheduler');

// Stands for NNI's local training service. `outcomes` holds what the next calls of createTrial do: 'null', 'throw'.
class FakeService {
    attempts = []; // ids for which a trial was to be created
    sent = {}; // id -> parameters that the trial got
    signalled = []; // ids of stopped trials

    constructor(...outcomes) {
        this.outcomes = outcomes;
    }
    async init() {}
    async uploadDirectory() {}
    async start() {
        return [{ id: 'local-env' }];
    }
    onTrialStart(callback) { this.startTrial = callback; }
    onTrialEnd(callback) { this.endTrial = callback; }
    onRequestParameter(callback) { this.requestParameter = callback; }
    onMetric() {}
    onEnvironmentUpdate() {}
    async createTrial(envId, _command, _directory, _sequence, id) {
        assert.equal(envId, 'local-env');
        this.attempts.push(id);
        const outcome = this.outcomes.shift();
        if (outcome === 'throw') {
            throw new Error('cannot start now');
        }
        if (outcome === 'null') {
            return null;
        }
        this.startTrial(id, Date.now());
        return id;
    }
    async sendParameter(id, parameters) {
        this.sent[id] = parameters;
    }
    async stopTrial(id) {
        this.signalled.push(id);
        await sleep(10);
        this.endTrial(id, Date.now(), null);
    }
    async stop() {}
}

async function startService(...outcomes) {
    const service = new V3asV1({ platform: 'local', trialCommand: 'true', trialCodeDirectory: '.' });
    service.v3 = new FakeService(...outcomes);
    await service.start();
    return service;
}

function form(number) {
    const value = JSON.stringify({ parameter_id: number, parameters: { x: number } });
    return { sequenceId: number, hyperParameters: { value, index: 0 } };
}

function final(id, value) {
    return JSON.stringify({ trial_job_id: id, type: 'FINAL', value: JSON.stringify(value) });
}

function events(trial) {
    const lines = fs.readFileSync(eventsFile, 'utf8').trim().split('\n').map(line => JSON.parse(line));
    return lines.filter(event => event.trial === trial);
}

// A manager that has just what the methods under test use.
function fakeManager(service, ids = []) {
    const manager = Object.create(NNIManager.prototype);
    const log = { info() {}, debug() {}, warning() {}, error() {} };
    const stored = [];
    const told = [];
    const dataStore = {
        storeTrialJobEvent: async status => { stored.push(status); },
        storeMetricData: async (_id, data) => { await sleep(100); stored.push(data); },
    };
    const dispatcher = { sendCommand: (command, content) => { told.push([command, content]); } };
    const trialJobs = new Map(ids.map(id => [id, { ...service.trialJobs[id] }]));
    const experimentProfile = { params: {} };
    const status = { status: 'RUNNING', errors: [] };
    const fields = { trainingService: service, log, dataStore, dispatcher, trialJobs, experimentProfile, status };
    return Object.assign(manager, fields, { stored, told });
}

test('the first event names all that is repaired', () => {
    const [loaded] = events(undefined);
    assert.equal(loaded.event, 'loaded');
    assert.ok(loaded.patched.includes('V3asV1.submitTrialJob'));
    assert.ok(loaded.patched.includes('NNIManager.onTrialJobMetrics'));
});

test('a trial that cannot start twice is tried again with the same id and gets its own parameters', async () => {
    const service = await startService('null', 'throw');
    const [first, second] = await Promise.all([service.submitTrialJob(form(1)), service.submitTrialJob(form(2))]);
    assert.match(first.id, /^[A-Za-z0-9]{8}$/);
    assert.deepEqual(service.v3.attempts.slice().sort(), [first.id, first.id, second.id, second.id].sort());
    assert.equal(service.parameters.length, 0, 'the shared queue is what swaps parameters');
    await service.v3.requestParameter(second.id); // in the other order
    await service.v3.requestParameter(first.id);
    assert.equal(service.v3.sent[first.id], form(1).hyperParameters.value);
    assert.equal(service.v3.sent[second.id], form(2).hyperParameters.value);
    const [start] = events(first.id);
    assert.deepEqual([start.event, start.sequence, start.parameter_id, start.parameters], ['start', 1, 1, { x: 1 }]);
});

test('one trial fails to start by null and by exception before it starts', async () => {
    const service = await startService('null', 'throw');
    const trial = await service.submitTrialJob(form(3));
    assert.deepEqual(service.v3.attempts, [trial.id, trial.id, trial.id]);
    assert.equal(trial.envId, 'local-env');
});

test('a resumed trial keeps its id, also where its environment is unknown or gone', async () => {
    const service = await startService();
    assert.equal((await service.submitTrialJob({ ...form(4), id: 'resumed1' })).id, 'resumed1');
    const moved = await service.submitTrialJob({ ...form(5), id: 'resumed2', envId: 'lost-env' });
    assert.deepEqual([moved.id, moved.envId], ['resumed2', 'local-env']);
});

test('each reason for a cancel is known, and the status is right when the trial ends', async () => {
    const service = await startService();
    const [bad, slow, unwanted, last] = await Promise.all([6, 7, 8, 9].map(n => service.submitTrialJob(form(n))));
    const manager = fakeManager(service, [slow.id]);
    manager.trialJobs.get(slow.id).startTime = Date.now() - 60000;
    manager.experimentProfile.params.maxTrialDuration = '30s';
    await Promise.all([
        manager.stopTrialIfOverMaxDurationLimit(),
        manager.onTunerCommand('KI', JSON.stringify(bad.id)),
        manager.cancelTrialJobByUser(unwanted.id),
        manager.cancelTrialJobByUser(bad.id), // too late to be the cause
    ]);
    const ends = [bad, slow, unwanted].map(({ id }) => events(id)[1]);
    assert.deepEqual(ends.map(({ event }) => event), ['end', 'end', 'end']);
    assert.deepEqual(ends.map(({ cause }) => cause), ['early_stopped', 'timed_out', 'user']);
    assert.deepEqual(ends.map(({ status }) => status), ['EARLY_STOPPED', 'EARLY_STOPPED', 'USER_CANCELED']);
    assert.deepEqual(service.v3.signalled.slice().sort(), [bad.id, slow.id, unwanted.id].sort());
    service.v3.endTrial(last.id, 5000, 1);
    const { time, exit_code, signal, status, cause } = events(last.id)[1];
    assert.deepEqual([time, exit_code, signal, status, cause], [5, 1, null, 'FAILED', null]);
});

test('a metric is stored and told once, whether or not the manager lists its trial, and before the trial ends', async () => {
    const service = await startService();
    const [listed, early] = await Promise.all([service.submitTrialJob(form(10)), service.submitTrialJob(form(11))]);
    const manager = fakeManager(service, [listed.id]);
    const metrics = [listed, early].map(({ id }) => manager.onTrialJobMetrics({ id, data: final(id, 0.5) }));
    service.v3.endTrial(listed.id, Date.now(), 0);
    assert.equal(await manager.requestTrialJobsStatus(), 1);
    await Promise.all(metrics);
    const told = manager.told.map(([command, content]) => command === 'EN' ? 'end' : content);
    assert.deepEqual(told.slice().sort(), ['end', final(listed.id, 0.5), final(early.id, 0.5)].sort());
    assert.ok(told.indexOf('end') > told.indexOf(final(listed.id, 0.5)));
    await manager.onTrialJobMetrics({ id: listed.id, data: final(listed.id, 0.9) });
    assert.ok(manager.stored.includes(final(listed.id, 0.9)));
    assert.equal(manager.told.length, 3);
    const finals = manager.stored.filter(entry => entry.includes('0.5'));
    assert.deepEqual(finals.sort(), [final(early.id, 0.5), final(listed.id, 0.5)].sort());
});

test('what is no finite number does not reach the tuner, which would die of it', async () => {
    const service = await startService();
    const trial = await service.submitTrialJob(form(13));
    const manager = fakeManager(service, [trial.id]);
    for (const value of ['text', null, [1], {}, { accuracy: 1 }, { default: 'text' }, { default: null }]) {
        await manager.onTrialJobMetrics({ id: trial.id, data: final(trial.id, value) });
    }
    await manager.onTrialJobMetrics({ id: trial.id, data: '{"type": "FINAL", "value": "{\\"default\\": NaN}"}' });
    assert.deepEqual([manager.stored, manager.told], [[], []]);
    await manager.onTrialJobMetrics({ id: trial.id, data: final(trial.id, { default: 0, note: 1 }) });
    assert.equal(manager.told.length, 1);
});

test('a resumed experiment goes on counting', () => {
    const manager = fakeManager({ trialJobs: {} });
    manager.experimentProfile.nextSequenceId = 7;
    assert.equal(manager.addRecoveredTrialJob([{ status: 'SUCCEEDED', sequenceId: 6 }]), 0);
    assert.equal(manager.experimentProfile.nextSequenceId, 7);
});

test('a trial that ends while its status is being stored has its end stored, too', async () => {
    const service = await startService();
    const trial = await service.submitTrialJob(form(12));
    const manager = fakeManager(service, [trial.id]);
    manager.trialJobs.get(trial.id).status = 'WAITING';
    const store = manager.dataStore.storeTrialJobEvent;
    manager.dataStore.storeTrialJobEvent = async status => {
        await store(status);
        service.v3.endTrial(trial.id, Date.now(), 0);
    };
    await manager.requestTrialJobsStatus();
    await manager.requestTrialJobsStatus();
    assert.deepEqual(manager.stored, ['RUNNING', 'SUCCEEDED']);
});

test('the only GPU gets one trial at a time', async () => {
    UnitTestHelpers.mockGpuInfo({ success: true, gpuNumber: 1, processes: [], gpus: [{ index: 0 }] });
    const scheduler = new TaskScheduler();
    await scheduler.init();
    assert.deepEqual(await scheduler.schedule('e', 'a', 1, {}), { CUDA_VISIBLE_DEVICES: '0', CUDA_DEVICE_ORDER: 'PCI_BUS_ID' });
    assert.equal(await scheduler.schedule('e', 'b', 1, {}), null);
    await scheduler.release('e', 'a');
    assert.deepEqual(await scheduler.schedule('e', 'b', 1, {}), { CUDA_VISIBLE_DEVICES: '0', CUDA_DEVICE_ORDER: 'PCI_BUS_ID' });
});

test('TensorBoard reads where trials write, and is served on the loopback, also from odd folders', async () => {
    const service = await startService();
    const { id } = await service.submitTrialJob(form(16));
    service.v3.downloadTrialDirectory = async trial => `/experiment/environments/local-env/trials/${trial}`;
    assert.equal(await service.getTrialOutputLocalPath(id), `/experiment/environments/local-env/trials/${id}`);
    const folder = `${eventsFile} it's`;
    fs.mkdirSync(folder);
    const manager = Object.create(NNITensorboardManager.prototype);
    manager.tensorboardVersion = '2.21.0';
    manager.nniManager = { getTrialJob: async () => ({ sequenceId: 3 }) };
    const words = await manager.getTensorboardStartCommand(['abc'], [folder], 6006);
    const print = words.join(' ').replace(/^exec '[^']*'/, 'printf "%s\\n"');
    const [, ...shown] = execFileSync('sh', ['-c', print], { encoding: 'utf8' }).trim().split('\n');
    const script = require.resolve('../runner/serve_tensorboard.py');
    const expected = [script, '--load_fast=false', '--host', '127.0.0.1', '--logdir_spec'];
    assert.deepEqual(shown, [...expected, `3-abc:${fs.realpathSync(folder)}`, '--port=6006']);
});

for (const args of [[0], ['0'], [0, 5], [], [null], [{ port: 0 }], [{ port: 0, backlog: 5 }]]) {
    test(`a server that listens on ${JSON.stringify(args)} does so on the loopback`, async () => {
        const server = net.createServer();
        await new Promise(resolve => { server.listen(...args, resolve); });
        const { address } = server.address();
        server.close();
        assert.equal(address, '127.0.0.1');
    });
}

// What a guarded server answers to a request, word for word: the status, or the status of the answer to an upgrade.
async function answerTo(head) {
    const seen = [];
    const server = http.createServer((request, response) => { seen.push(request.url); response.end('read'); });
    server.on('upgrade', (request, socket) => { seen.push(request.url); socket.end('HTTP/1.1 101 \r\n\r\n'); });
    await new Promise(resolve => { server.listen(0, resolve); });
    const text = await new Promise((resolve, reject) => {
        let said = '';
        const socket = net.connect(server.address().port, '127.0.0.1', () => { socket.write(`${head}\r\n\r\n`); });
        socket.on('data', data => { said += data; }).on('end', () => resolve(said)).on('error', reject);
    });
    server.close();
    return { status: Number(/.*HTTP\/1\.1 (\d+)/s.exec(text)[1]), text, seen }; // the last one: 100 may come before
}

const HOSTS = ['127.0.0.1:8080', 'localhost:9999', '[::1]:8080', '127.0.0.1'];
const OWN = `/${SECRET}/api`;
const CLOSE = 'Connection: close';
for (const lines of [
    ...HOSTS.map(host => [`GET ${OWN} HTTP/1.1`, `Host: ${host}`, CLOSE]),
    [`GET /${SECRET} HTTP/1.1`, 'Host: 127.0.0.1', CLOSE],
    [`GET ${OWN}?path=a..b HTTP/1.1`, 'Host: 127.0.0.1', CLOSE],
    [`PUT ${OWN} HTTP/1.1`, 'Host: 127.0.0.1:8080', 'Origin: http://127.0.0.1:8080', 'Content-Length: 0', CLOSE],
    [`GET ${OWN}/a%20b%2Fc HTTP/1.1`, 'Host: 127.0.0.1', CLOSE],
]) {
    test(`the owner is answered: ${lines.slice(0, -1).join(', ').replaceAll(SECRET, 'S')}`, async () => {
        const { status, text, seen } = await answerTo(lines.join('\r\n'));
        assert.deepEqual([status, seen.length], [200, 1]);
        assert.match(text, /^Referrer-Policy: no-referrer\r$/m);
    });
}

for (const [line, ...rest] of [
    ['GET / HTTP/1.1', 'Host: 127.0.0.1'],
    ['GET /api HTTP/1.1', 'Host: 127.0.0.1'],
    [`GET /${SECRET.slice(1)}/api HTTP/1.1`, 'Host: 127.0.0.1'],
    [`GET /${SECRET}0/api HTTP/1.1`, 'Host: 127.0.0.1'],
    [`GET //${SECRET}/api HTTP/1.1`, 'Host: 127.0.0.1'],
    [`GET /?/${SECRET}/api HTTP/1.1`, 'Host: 127.0.0.1'],
    [`GET http://127.0.0.1${OWN} HTTP/1.1`, 'Host: 127.0.0.1'],
    [`GET /%30${SECRET.slice(1)}/api HTTP/1.1`, 'Host: 127.0.0.1'],
    ...['evil.example', '127.0.0.1.evil.example', '127.0.0.1:80@evil', 'localhost.', '0.0.0.0', '127.0.0.2'].map(
        host => [`GET ${OWN} HTTP/1.1`, `Host: ${host}`]),
    [`GET ${OWN} HTTP/1.0`, 'X: no host'],
    ...['http://evil.example', 'null', 'http://127.0.0.1:8081', 'http://localhost:8080', 'ftp://127.0.0.1:8080'].map(
        origin => [`POST ${OWN} HTTP/1.1`, 'Host: 127.0.0.1:8080', `Origin: ${origin}`, 'Content-Length: 0']),
    ...['/../x', '/..', '/%2e%2e/x', '/%252e./x', '/%25252e%25252e', '/a%00b', '/a\\b', '/%5c', '/%', '/%ff'].map(
        end => [`GET ${OWN}${end} HTTP/1.1`, 'Host: 127.0.0.1']),
    [`GET /${SECRET}/netron/index.html HTTP/1.1`, 'Host: 127.0.0.1'],
    [`POST /api HTTP/1.1`, 'Host: 127.0.0.1', 'Expect: 100-continue', 'Content-Length: 0'],
    ['GET /tuner HTTP/1.1', 'Host: 127.0.0.1', 'Upgrade: websocket'],
    [`GET /${SECRET}/tuner HTTP/1.1`, 'Host: 127.0.0.1', 'Upgrade: websocket', 'Origin: http://evil.example'],
    [`GET /${SECRET}/tuner HTTP/1.1`, 'Host: evil.example', 'Upgrade: websocket'],
]) {
    const upgrades = rest.includes('Upgrade: websocket');
    const name = [line, ...rest].join(', ').replaceAll(SECRET, 'S');
    test(`nobody else is answered: ${name}`, async () => {
        const lines = [line, ...rest, upgrades ? 'Connection: Upgrade' : CLOSE];
        const { status, text, seen } = await answerTo(lines.join('\r\n'));
        assert.deepEqual([status, seen], [403, []]);
        assert.ok(!text.includes(SECRET));
    });
}

test('connections that show no secret do not use up the files of the process', async () => {
    const server = http.createServer((request, response) => { response.end('read'); });
    await new Promise(resolve => { server.listen(0, resolve); });
    const { port } = server.address();
    const idle = Array.from({ length: 600 }, () => net.connect(port, '127.0.0.1').on('error', () => {}));
    await Promise.all(idle.map(socket => new Promise(resolve => { socket.once('connect', resolve); })));
    const headers = { Host: `127.0.0.1:${port}` };
    const status = await new Promise(resolve => {
        http.get({ port, host: '127.0.0.1', path: `/${SECRET}/api`, headers, agent: false }, answer => {
            answer.resume();
            resolve(answer.statusCode);
        });
    });
    assert.equal(status, 200);
    const open = await new Promise(resolve => { server.getConnections((_error, count) => resolve(count)); });
    assert.ok(open <= 513, `${open} are open`);
    idle.forEach(socket => socket.destroy());
    server.close();
});

test('an upgrade of the owner passes', async () => {
    const head = [`GET /${SECRET}/tuner HTTP/1.1`, 'Host: 127.0.0.1', 'Upgrade: websocket', 'Connection: Upgrade'];
    assert.deepEqual((await answerTo(head.join('\r\n'))).seen, [`/${SECRET}/tuner`]);
});

test('a socket in the file system is left alone', async () => {
    const server = net.createServer();
    await new Promise(resolve => { server.listen(`${eventsFile}.socket`, resolve); });
    assert.equal(server.address(), `${eventsFile}.socket`);
    server.close();
});

// The last test: afterwards nothing starts any more in this process.
test('stopping: running trials are signalled once, at once, and nothing else starts', async () => {
    const service = await startService();
    const trials = await Promise.all([13, 14].map(number => service.submitTrialJob(form(number))));
    const manager = fakeManager(service, trials.map(({ id }) => id));
    manager.stopExperimentTopHalf = async () => { assert.equal(service.v3.signalled.length, 2); };
    manager.stopExperimentBottomHalf = async () => {
        await Promise.all(trials.map(({ id }) => service.cancelTrialJob(id)));
    };
    await manager.stopExperiment();
    assert.deepEqual(service.v3.signalled, trials.map(({ id }) => id));
    assert.deepEqual(trials.map(({ id }) => events(id)[1].cause), ['stopping', 'stopping']);
    const late = service.submitTrialJob(form(15));
    assert.equal(await Promise.race([late, sleep(100, 'never')]), 'never');
    assert.equal(service.v3.attempts.length, 2);
});
