'use strict';
// Repairs NNI 3.0's training service for other machines, reached by SSH; loaded by preload.js where HPO_REMOTE names
// the file that runner/machines.py wrote: {"<host>:<port>": {"host_keys": [[type, key], ...], "command", "environ"}}.
// Here NNI checks host keys, installs nothing, and needs no open port: a machine reaches the manager through a tunnel
// in its own SSH connection, which lets only its own keeper through. A machine that drops out costs the trials that
// run there; it is called again until it is back. When a trial ends, its files are fetched before NNI hears of it.

const crypto = require('crypto');
const fs = require('fs');
const net = require('net');
const os = require('os');
const path = require('path');
const { setTimeout: sleep } = require('timers/promises');
const { promisify } = require('util');
const { LOOPBACK } = require('./shared.js');

const NNI_VERSION = '3.0'; // as Python tells it
const KEEPALIVE = { keepaliveInterval: 5000, keepaliveCountMax: 12 }; // a minute of silence is a loss
const LAUNCH_MS = 300000; // longest time for a machine to come up
const STOP_MS = 8000; // longest time for it to be stopped; NNI gives a trial 5 s
const UPGRADE_MS = 10000; // longest time for a keeper to say what it wants
const LONGEST_HEAD = 8192;
const FIRST_WAIT_MS = 3000; // before a machine is called again; then longer and longer
const LONGEST_WAIT_MS = 30000;
const MOST_LOSSES = 3; // of a machine without a finished trial between them
const SENT = ['shared.js', 'guard.js', 'keeper.js']; // to each machine, beside what NNI sends
const WEIGHTS = /^model\.\w+$/; // deleted on the machine once they are here
const VERSION_SCRIPT = 'from importlib import metadata; print(metadata.version("nni"))';
const RUN_SCRIPT = [ // as python -m does, without importing all of nni
    'import os, runpy, sys; from importlib import util; sys.argv = sys.argv[1:]',
    'folder = os.path.join(os.path.dirname(util.find_spec("nni").origin), "tools", "nni_manager_scripts")',
    'runpy.run_path(os.path.join(folder, sys.argv[0] + ".py"), run_name="__main__")',
].join('; ');
const RSA = ['rsa-sha2-512', 'rsa-sha2-256']; // what a key of type ssh-rsa signs with

let ours; // what preload.js shares
let settings;
let experimentRoot; // function
let service; // NNI's RemoteTrainingServiceV3
const ready = new Set(); // workers (NNI's word for a machine's connection and keeper) that have the trials' code
const gone = new Map(); // worker -> { promise, reject }: rejected when it is lost
const workerOf = new Map(); // trial id -> worker
const over = new Set(); // ids of trials that have ended
const fetching = new Set(); // promises
const losses = new Map(); // machine -> how often it was lost since the last trial that ended there
const states = new Map(); // machine -> up | failed | lost | given_up
const calling = new Set(); // machines that are being called again

function repair(settingsFile, shared) {
    ours = shared;
    settings = JSON.parse(fs.readFileSync(settingsFile, 'utf8'));
    const { find, wrap } = ours;
    const { globals } = require(path.join(ours.nniNode, 'common/globals'));
    experimentRoot = () => globals.paths.experimentRoot;
    answerVersion(require(path.join(ours.nniNode, 'common/pythonScript')));
    const Service = find('training_service/remote_v3/remote', 'RemoteTrainingServiceV3');
    const Worker = find('training_service/remote_v3/worker', 'Worker');
    const Ssh = find('training_service/remote_v3/ssh', 'Ssh');
    const replacements = { start, stop, stopWorker, restartWorker, createTrial, stopTrial, sendParameter };
    wrapAll(Service, { ...replacements, onTrialStart, onTrialEnd, downloadTrialDirectory });
    wrapAll(Worker, { stop: stopInTime, upload, launchTrialKeeperDaemon });
    wrapAll(Ssh, { exec, writeFile, sftp });
    wrap(find('node_modules/ssh2/lib/index', 'Client'), 'connect', connect);
}

// To learn its own version, for each machine, NNI imports all of itself.
function answerVersion(module) {
    const { runPythonScript } = module;
    const asked = 'import nni ; print(nni.__version__)';
    module.runPythonScript = async (script, ...rest) =>
        script === asked ? NNI_VERSION : runPythonScript(script, ...rest);
}

function wrapAll(owner, replacements) {
    for (const [method, replacement] of Object.entries(replacements)) {
        ours.wrap(owner, method, replacement);
    }
}

function nameOf(config) {
    return `${config.host}:${config.port}`;
}

// ---- the connection

// NNI checks no host key, notices no silent loss, and dies of an error that comes after the login.
function connect(original, config) {
    const hostKeys = settings[nameOf(config)].host_keys;
    this.on('error', error => console.error(`runner/remote.js: ${nameOf(config)}: ${error.message}`));
    return original.call(this, {
        ...config,
        ...KEEPALIVE,
        algorithms: { serverHostKey: hostKeys.flatMap(([type]) => type === 'ssh-rsa' ? RSA : [type]) },
        hostVerifier: key => hostKeys.some(([, known]) => known === key.toString('base64')),
    });
}

// NNI's own commands; each that imports nni is slow, and most need not.
async function exec(original, command) {
    if (command.includes(' -m pip install nni')) {
        return { stdout: '', stderr: '', code: 0 }; // nothing is installed unasked
    }
    const python = command.split(' ', 1)[0];
    const [, script, folder] = / -m nni\.tools\.nni_manager_scripts\.(\w+) (.+)$/.exec(command) ?? [];
    if (script) {
        const environ = script === 'launch_trial_keeper' ? await prepareLaunch(this, folder) : '';
        const result = await original.call(this, `${environ}${python} -c '${RUN_SCRIPT}' ${script} ${folder}`);
        if (script === 'create_trial_keeper_dir') {
            const keeper = result.stdout.trim(); // ~/nni-experiments/<id>/environments/<env>/trial_keeper
            const experiment = path.posix.dirname(path.posix.dirname(path.posix.dirname(keeper)));
            await original.call(this, `chmod 700 ${experiment} ${keeper}`); // which will hold the tunnel's key
        }
        return result;
    }
    if (command.includes('print(nni.__version__)')) {
        const result = await original.call(this, `${python} -c '${VERSION_SCRIPT}'`);
        if (result.stdout.trim() !== NNI_VERSION) {
            throw new Error(`NNI ${NNI_VERSION} is needed there, not ${result.stdout.trim() || 'none'}`);
        }
        return result;
    }
    return original.call(this, command);
}

// Send the repairs of the keeper; return the environment for its command.
async function prepareLaunch(ssh, folder) {
    for (const name of SENT) {
        await ssh.writeFile(path.posix.join(folder, name), fs.readFileSync(path.join(__dirname, name), 'utf8'));
    }
    const { environ } = settings[nameOf(ssh.config)];
    const words = Object.entries(environ).map(([name, value]) => `${name}=${value}`);
    return [`NODE_OPTIONS='--require "${folder}/keeper.js"'`, ...words, ''].join(' ');
}

// NNI's own leaves errors (a full disk, a lost connection) to nobody, of which the manager dies.
async function writeFile(_original, remotePath, data) {
    const session = await this.sftp();
    return promisify(session.writeFile.bind(session))(remotePath, data);
}

async function sftp(original) {
    const session = await original.call(this);
    if (session.listenerCount('error') === 0) {
        session.on('error', error => console.error(`runner/remote.js: ${nameOf(this.config)}: ${error.message}`));
    }
    return session;
}

// ---- the tunnel

async function launchTrialKeeperDaemon(original) {
    const { client } = this.ssh;
    client.on('close', () => loseConnection(this));
    await openTunnel(this, client);
    return original.call(this);
}

// A port on the machine's loopback leads to the manager. Whoever works there may connect to it: only a web socket with
// the key that the machine's keeper was given is let through. The manager's own secret does not leave this machine.
async function openTunnel(worker, client) {
    const port = await promisify(client.forwardIn.bind(client))(LOOPBACK, 0);
    const own = new URL(worker.channelUrl);
    const key = `/${crypto.randomBytes(16).toString('hex')}`;
    worker.channelUrl = `ws://${LOOPBACK}:${port}${key}`;
    client.on('tcp connection', (_info, accept) => forward(accept(), key, own));
}

function forward(stream, key, { pathname, port }) {
    let head = Buffer.alloc(0);
    const timer = setTimeout(() => stream.close(), UPGRADE_MS);
    const read = chunk => {
        head = Buffer.concat([head, chunk]);
        const end = head.indexOf('\r\n\r\n');
        if (end < 0 && head.length < LONGEST_HEAD) {
            return;
        }
        clearTimeout(timer);
        stream.off('data', read);
        if (end >= 0 && isUpgrade(head.toString('latin1', 0, end), key)) {
            join(stream, Buffer.concat([Buffer.from(`GET ${pathname}`), head.subarray(`GET ${key}`.length)]), port);
        } else {
            stream.close();
        }
    };
    stream.on('data', read);
    stream.on('error', () => {});
    stream.on('close', () => clearTimeout(timer));
}

function isUpgrade(head, key) {
    const [request, ...fields] = head.split('\r\n');
    return request === `GET ${key} HTTP/1.1` && fields.some(field => /^upgrade: *websocket *$/i.test(field));
}

function join(stream, head, port) {
    stream.pause();
    const socket = net.connect(port, LOOPBACK, () => {
        socket.write(head);
        stream.pipe(socket).pipe(stream);
    });
    socket.on('error', () => {});
    socket.on('close', () => stream.close());
    stream.on('close', () => socket.destroy());
}

// ---- machines come and go

// NNI gives up where one machine does not come up; here the others begin.
async function start() {
    service = this;
    await this.server.start();
    await Promise.all(this.config.machineList.map(launch));
    return this.workers.map(worker => worker.env);
}

async function stop(original) {
    await original.call(this);
    await Promise.allSettled([...fetching]);
}

async function stopInTime(original) {
    return Promise.race([original.call(this), sleep(STOP_MS, undefined, { ref: false })]);
}

// Bring a machine up and give it the code, where that is packed already. Returns whether it worked.
async function launch(config) {
    const launching = service.launchWorker(config);
    const worker = service.workers.at(-1);
    const patience = sleep(LAUNCH_MS, undefined, { ref: false }).then(() => { throw new Error('it does not come up'); });
    patience.catch(() => {});
    try {
        await Promise.race([untilGone(worker, launching), patience]);
        for (const name of service.uploadedDirs) {
            await worker.upload(name, path.join(experimentRoot(), 'tarball', `${name}.tgz`));
        }
        service.emitEnvUpdate();
        return true;
    } catch (error) {
        note(config, 'failed', error.message);
        service.stopWorker(worker, true);
        return false;
    }
}

async function upload(original, name, tar) {
    await untilGone(this, original.call(this, name, tar));
    ready.add(this);
    note(this.config, 'up');
}

// NNI calls a lost machine once, and then does without it.
async function callAgain(config) {
    if (calling.has(config)) {
        return;
    }
    calling.add(config);
    let wait = FIRST_WAIT_MS;
    do {
        await sleep(wait, undefined, { ref: false });
        wait = Math.min(wait * 1.2, LONGEST_WAIT_MS);
    } while (!ours.isStopping() && !await launch(config));
    calling.delete(config);
}

// The connection has ended.
function loseConnection(worker) {
    markGone(worker);
    if (ready.has(worker) && !ours.isStopping()) {
        service.stopWorker(worker, true);
    }
}

function restartWorker(_original, worker) {
    this.stopWorker(worker, true);
}

// All that runs on the machine is lost.
function stopWorker(original, worker) {
    if (!this.workers.includes(worker)) {
        return; // known already
    }
    for (const [id, { config }] of [...this.workersByTrial].filter(([, owner]) => owner === worker)) {
        if (!over.has(id) && !ours.causes.has(id)) {
            ours.causes.set(id, 'machine_lost');
            console.error(`runner/remote.js: trial ${id} is lost with ${nameOf(config)}`);
        }
    }
    const wasReady = ready.delete(worker);
    markGone(worker);
    original.call(this, worker, true);
    worker.ssh.disconnect();
    if (ours.isStopping()) {
        return;
    }
    if (wasReady) {
        afterLoss(worker.config);
    } else {
        note(worker.config, 'failed', 'the code could not be sent');
        callAgain(worker.config);
    }
}

function afterLoss(config) {
    const times = (losses.get(config) ?? 0) + 1;
    losses.set(config, times);
    if (times > MOST_LOSSES) {
        note(config, 'given_up', `lost ${times} times without a finished trial between`);
    } else {
        note(config, 'lost', 'the connection was lost');
        callAgain(config);
    }
}

function note(config, state, reason = null) {
    const machine = nameOf(config);
    if (states.get(machine) !== state && !(state === 'failed' && states.get(machine) === 'lost')) {
        states.set(machine, state);
        ours.record({ event: 'machine', machine, state, reason, time: Date.now() / 1000 });
    }
}

// An answer of a lost machine never comes: NNI waits for it for ever.
function untilGone(worker, promise) {
    promise.catch(() => {});
    return Promise.race([promise, whenGone(worker).promise]);
}

function whenGone(worker) {
    if (!gone.has(worker)) {
        const entry = {};
        entry.promise = new Promise((_resolve, reject) => { entry.reject = reject; });
        entry.promise.catch(() => {});
        gone.set(worker, entry);
    }
    return gone.get(worker);
}

function markGone(worker) {
    whenGone(worker).reject(new Error('the connection was lost'));
}

// ---- trials

async function createTrial(original, envId, _command, directory, sequence, id) {
    const worker = this.workersByEnv.get(envId);
    if (!ready.has(worker)) {
        return null; // it has not got the code yet
    }
    workerOf.set(id, worker);
    ours.machines.set(id, nameOf(worker.config));
    const { command } = settings[nameOf(worker.config)];
    return untilGone(worker, original.call(this, envId, command, directory, sequence, id));
}

async function stopTrial(original, id) {
    const worker = this.workersByTrial.get(id);
    return worker && untilGone(worker, original.call(this, id)).catch(() => {});
}

async function sendParameter(original, id, parameter) {
    const worker = this.workersByTrial.get(id);
    return worker && untilGone(worker, original.call(this, id, parameter)).catch(() => {});
}

// Clocks differ: times are the manager's.
function onTrialStart(original, callback) {
    return original.call(this, id => callback(id, Date.now()));
}

// NNI ends all trials of a lost machine, those again that had ended long before.
function onTrialEnd(original, callback) {
    return original.call(this, (id, _time, exitCode) => {
        if (!over.has(id)) {
            over.add(id);
            const time = Date.now();
            const fetched = fetchUnlessLost(id).then(() => tellEnd(callback, id, time, exitCode));
            fetching.add(fetched);
            fetched.finally(() => fetching.delete(fetched));
        }
    });
}

function tellEnd(callback, id, time, exitCode) {
    if (exitCode !== null) {
        losses.delete(workerOf.get(id).config);
    }
    if (exitCode < 0) {
        const [name] = Object.entries(os.constants.signals).find(([, number]) => number === -exitCode);
        ours.signals.set(id, name);
    }
    return callback(id, time, exitCode < 0 ? null : exitCode);
}

async function fetchUnlessLost(id) {
    const worker = workerOf.get(id);
    if (!ready.has(worker)) {
        return;
    }
    try {
        await untilGone(worker, fetchTrial(worker, id));
    } catch (error) {
        console.error(`runner/remote.js: the files of trial ${id} could not be fetched:`, error);
    }
}

function localFolder(worker, id) {
    return path.join(experimentRoot(), 'environments', worker.envId, 'trials', id);
}

// Fetch a trial's files; the record comes last, so that it stands for all of them.
async function fetchTrial(worker, id) {
    const session = await worker.ssh.sftp();
    const remote = path.posix.join(path.posix.dirname(worker.uploadDir), 'trials', id);
    const names = await filesIn(session, remote, '');
    names.sort((a, b) => (a === 'record.json') - (b === 'record.json'));
    for (const name of names) {
        await fetchFile(session, path.posix.join(remote, name), path.join(localFolder(worker, id), name));
    }
    for (const name of names.filter(name => WEIGHTS.test(name))) {
        await promisify(session.unlink.bind(session))(path.posix.join(remote, name));
    }
}

async function filesIn(session, folder, prefix) {
    const entries = await promisify(session.readdir.bind(session))(path.posix.join(folder, prefix));
    const names = [];
    for (const { filename, attrs } of entries.filter(({ filename }) => !filename.startsWith('.'))) {
        const name = path.posix.join(prefix, filename);
        if (attrs.isDirectory()) {
            names.push(...await filesIn(session, folder, name));
        } else if (attrs.isFile()) {
            names.push(name);
        }
    }
    return names;
}

async function fetchFile(session, remote, local) {
    await fs.promises.mkdir(path.dirname(local), { recursive: true });
    await promisify(session.fastGet.bind(session))(remote, `${local}.part`);
    await fs.promises.rename(`${local}.part`, local);
}

async function downloadTrialDirectory(original, id) {
    const folder = workerOf.has(id) && localFolder(workerOf.get(id), id);
    return folder && fs.existsSync(path.join(folder, 'trial.stderr')) ? folder : original.call(this, id);
}

module.exports = { forward, repair };
