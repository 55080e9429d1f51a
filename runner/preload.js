'use strict';
// Repairs NNI 3.0's manager in memory; NNI's files stay as they are. runner/manager.py starts the manager with
//     NODE_OPTIONS='--require "<this file>"'   HPO_EVENTS=<file that gets one JSON line per event>
//     HPO_SECRET=<what the path of every request begins with>
// What the events mean stands in runner/manager.py: read_events. Where NNI is not the version that these repairs were
// written for, the manager ends with status 70 and one line on stderr, before anything is started.

const { AsyncLocalStorage } = require('async_hooks');
const crypto = require('crypto');
const fs = require('fs');
const Module = require('module');
const os = require('os');
const path = require('path');
const { setTimeout: sleep } = require('timers/promises');
const { getFullUrl, guardServers, hideSecrets, listeners } = require('./guard.js');
const { LOOPBACK, listenOnLoopback, schedule } = require('./shared.js');

const NNI_VERSION = '3.0.0'; // as nni_node/package.json of nni 3.0 says
const WRONG_NNI = 70; // exit status
const RETRY_MS = 1000;
const LAST_MS = 12000; // for a manager to stop whose driver is gone
const POLL_MS = 200;
const TENSORBOARD_MS = 60000; // for it to listen
const TUNER_MS = 60000; // for the tuner's process to answer; NNI gives it 10 s, too few on a busy machine
const CHANNEL = path.join(__dirname, 'channel.py');
const TENSORBOARD = path.join(__dirname, 'serve_tensorboard.py');
const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';

const eventsFile = process.env.HPO_EVENTS;
const eventsDescriptor = eventsFile && fs.openSync(eventsFile, 'a'); // at once: later there may be too many open files
const secret = process.env.HPO_SECRET ?? ''; // never on a command line, which every user can read
const secrets = [secret]; // what no log may hold
const tensorboardOf = new AsyncLocalStorage(); // the secret of the TensorBoard that is being started
const remoteFile = process.env.HPO_REMOTE; // what remote.js needs; set where trials run on other machines
// names of the GPUs for trials on this machine, as CUDA_VISIBLE_DEVICES takes them; unset: no trial is given any
const gpus = process.env.HPO_GPUS && JSON.parse(process.env.HPO_GPUS);
const patched = []; // names of what has been repaired
const forms = new Map(); // trial id -> NNI's request for that trial
const signals = new Map(); // trial id -> signal that ended its process
// trial id -> why it was cancelled: early_stopped | timed_out | user | stopping | machine_lost
const causes = new Map();
const machines = new Map(); // trial id -> the machine on which it runs, where that is another one
const cancelling = new Map(); // trial id -> promise of NNI's cancelTrialJob while it is at work
const finals = new Set(); // ids of trials whose final result has come
const storing = new Map(); // trial id -> promise: the metrics that came so far are stored and told to the tuner
const ended = new Set(); // ids of trials of whose end the tuner knows
const causeOfCancel = new AsyncLocalStorage(); // why the code that is running now cancels trials
let stopping = false;

endWithDriver();
hideFromChildren();
listenOnLoopback();
patched.push('net.Server.listen');
guardServers(secret);
patched.push('http.Server.emit');
process.argv.push('--url-prefix', secret); // NNI puts it into the addresses of web UI, tuner and trials
repairWhenLoaded();

// The manager lives no longer than the process that started it, also where that is killed: it stops as on SIGTERM.
function endWithDriver() {
    const driver = Number(process.env.HPO_MANAGED_BY?.split(' ')[0]);
    const watch = setInterval(() => {
        if (driver && process.ppid !== driver) {
            clearInterval(watch);
            setTimeout(() => process.exit(1), LAST_MS).unref();
            process.kill(process.pid, 'SIGTERM');
        }
    }, RETRY_MS);
    watch.unref();
}

// Tuner and trials inherit the manager's environment; they get NODE_OPTIONS as the user had it.
function hideFromChildren() {
    delete process.env.HPO_GPUS;
    delete process.env.HPO_EVENTS;
    delete process.env.HPO_REMOTE;
    delete process.env.HPO_SECRET;
    delete process.env.NODE_OPTIONS;
    if (process.env.HPO_NODE_OPTIONS) {
        process.env.NODE_OPTIONS = process.env.HPO_NODE_OPTIONS;
    }
    delete process.env.HPO_NODE_OPTIONS;
}

// main.js loads core/nnimanager before it starts anything; by then NNI's own module paths are set up.
function repairWhenLoaded() {
    const load = Module._load;
    let repaired = false;
    Module._load = function (request, parent, isMain) {
        const loaded = load.call(this, request, parent, isMain);
        if (!repaired && path.basename(request, '.js') === 'nnimanager') {
            repaired = true;
            repairAll(path.dirname(path.dirname(Module._resolveFilename(request, parent, isMain))));
        }
        return loaded;
    };
}

function repairAll(nniNode) {
    const { version } = require(path.join(nniNode, 'package.json'));
    if (version !== NNI_VERSION) {
        giveUp(`NNI's manager is version ${version}, but the repairs are for ${NNI_VERSION} (pip install nni==3.0)`);
    }
    if (!eventsFile || !/^[0-9a-f]{32}$/.test(secret)) {
        giveUp('HPO_EVENTS or HPO_SECRET is not set; start the manager by runner/manager.py');
    }
    const find = (file, name) => findClass(nniNode, file, name);
    repairService(find('training_service/v3/compat', 'V3asV1'));
    repairManager(find('core/nnimanager', 'NNIManager'));
    wrap(find('common/trial_keeper/process', 'TrialProcess'), 'resolveStop', resolveStop);
    wrap(find('common/trial_keeper/task_scheduler', 'TaskScheduler'), 'schedule', schedule);
    const { globals } = require(path.join(nniNode, 'common/globals'));
    repairAddresses(nniNode, find, globals.logStream);
    wrap(find('extensions/nniTensorboardManager', 'NNITensorboardManager'), 'getTensorboardStartCommand',
        async function (original, ...args) {
            return tensorboardCommand(globals.args.pythonInterpreter, await original.apply(this, args));
        });
    wrap(find('extensions/nniTensorboardManager', 'NNITensorboardManager'), 'startTensorboardTaskProcess',
        nameTensorboardAddress);
    const { getTunerServer } = require(path.join(nniNode, 'core/tuner_command_channel'));
    wrap(getTunerServer().constructor, 'init', waitForTuner);
    if (gpus) {
        giveOutGpus(find('common/trial_keeper/task_scheduler/scheduler', 'TaskScheduler'));
        wrap(find('common/trial_keeper/keeper', 'TrialKeeper'), 'start', startWithoutLook);
    }
    if (remoteFile) {
        const ours = { nniNode, find, wrap, record, causes, signals, machines, isStopping: () => stopping };
        require('./remote.js').repair(remoteFile, ours);
    }
    record({ event: 'loaded', patched });
}

// No log and no file holds a secret, and nobody is called by a name that may lead elsewhere.
function repairAddresses(nniNode, find, logStream) {
    hideSecrets(secrets, logStream, 'writeLine', 'writeLineSync');
    hideSecrets(secrets, process.stdout, 'write');
    hideSecrets(secrets, process.stderr, 'write');
    wrap(find('common/globals/rest', 'RestManager'), 'getFullUrl', getFullUrl);
    const utils = require(path.join(nniNode, 'common/utils'));
    const { getTunerProc } = utils; // starts TensorBoard too
    utils.getTunerProc = (command, stdio, folder, environ, ...rest) =>
        getTunerProc(safeCommand(command), stdio, folder, { ...environ, ...addressFor(environ) }, ...rest);
    patched.push('getTunerProc');
}

function addressFor({ NNI_TUNER_COMMAND_CHANNEL: tunerAddress }) {
    return tunerAddress
        ? { NNI_TUNER_COMMAND_CHANNEL: tunerAddress.replace('//localhost:', `//${LOOPBACK}:`) }
        : { HPO_TENSORBOARD_PREFIX: `/${tensorboardOf.getStore()}` };
}

// The tuner is started by channel.py, which looks at who listens before it speaks.
function safeCommand(command) {
    const [python, option, module, ...rest] = command;
    return option === '-m' && module === 'nni' ? [python, '-P', quoted(CHANNEL), ...rest] : command;
}

function repairService(V3asV1) {
    wrap(V3asV1, 'start', start);
    wrap(V3asV1, 'submitTrialJob', submitTrialJob);
    wrap(V3asV1, 'cancelTrialJob', cancelTrialJob);
    wrap(V3asV1, 'getTrialJob', getTrialJob);
    wrap(V3asV1, 'getTrialOutputLocalPath', getTrialOutputLocalPath);
}

function repairManager(NNIManager) {
    wrap(NNIManager, 'onTrialJobMetrics', onTrialJobMetrics);
    wrap(NNIManager, 'stopExperiment', stopExperiment);
    wrap(NNIManager, 'addRecoveredTrialJob', addRecoveredTrialJob);
    // NNI cancels trials for four reasons and tells its training service at most two apart.
    nameCause(NNIManager, 'onTunerCommand', 'early_stopped');
    nameCause(NNIManager, 'stopTrialIfOverMaxDurationLimit', 'timed_out');
    nameCause(NNIManager, 'cancelTrialJobByUser', 'user');
}

// NNI numbers all GPUs of the machine, whatever CUDA_VISIBLE_DEVICES shows, knows no MIG, and looks at them twice before
// the first trial starts, for half a minute where they are busy. Its bookkeeping is kept, on the GPUs that we were given.
function giveOutGpus(TaskScheduler) {
    const idle = { util: 0, coreUtil: 0, memUtil: 0, active: false, computeActive: false };
    wrap(TaskScheduler, 'init', async function () {
        this.gpus = gpus.map((_, index) => ({ index, ...idle }));
    });
    wrap(TaskScheduler, 'update', async () => {});
    wrap(TaskScheduler, 'emitUpdate', async () => {});
    wrap(TaskScheduler, 'schedule', async function (original, ...args) {
        const environ = await original.apply(this, args);
        return environ && { ...environ, CUDA_VISIBLE_DEVICES: gpus[environ.CUDA_VISIBLE_DEVICES] };
    });
}

function startWithoutLook(original) {
    this.gpuEnabled = false; // its scheduler is made already; this asks for what nobody is shown
    return original.call(this);
}

function findClass(nniNode, file, name) {
    const found = require(path.join(nniNode, file))[name];
    if (typeof found !== 'function') {
        giveUp(`${file}.js of NNI has no class ${name}`);
    }
    return found;
}

// Replace a method: `replacement` is called on the same object, with the original method before the arguments.
function wrap(owner, method, replacement) {
    const original = owner.prototype[method];
    if (typeof original !== 'function') {
        giveUp(`class ${owner.name} of NNI has no method ${method}`);
    }
    owner.prototype[method] = function (...args) {
        return replacement.call(this, original, ...args);
    };
    patched.push(`${owner.name}.${method}`);
}

function nameCause(owner, method, cause) {
    wrap(owner, method, function (original, ...args) {
        return causeOfCancel.run(cause, () => original.apply(this, args));
    });
}

function giveUp(reason) {
    fs.writeSync(2, `runner/preload.js: ${reason}\n`);
    process.exit(WRONG_NNI);
}

function record(event) {
    fs.appendFileSync(eventsDescriptor, JSON.stringify(event) + '\n');
}

// NNI hands parameters out in the order in which trials ask for them, but records them in the order in which it starts
// trials. With an id of its own a trial takes NNI's path for resumed trials, where parameters belong to the id.
async function submitTrialJob(original, form) {
    await this.startDeferred.promise;
    const id = form.id ?? unusedId(this);
    const repaired = { ...form, id, envId: form.envId ?? 'any' };
    forms.set(id, repaired);
    return original.call(this, repaired);
}

function unusedId(service) {
    for (;;) {
        const id = Array.from({ length: 8 }, () => LETTERS[crypto.randomInt(LETTERS.length)]).join('');
        if (service.trialJobs[id] === undefined && !forms.has(id)) {
            return id;
        }
    }
}

// createTrial of the training service below; the callbacks of trials pass through here on their way to NNI.
async function start(original) {
    const { v3 } = this;
    const { createTrial, onTrialStart, onTrialEnd } = v3;
    v3.createTrial = (envId, ...rest) => createUntilItStarts(this, createTrial, envId, ...rest);
    v3.onTrialStart = callback => onTrialStart.call(v3, (id, time) => {
        const done = callback(id, time);
        recordStart(id, time);
        return done;
    });
    v3.onTrialEnd = callback => onTrialEnd.call(v3, (id, time, exitCode) => {
        const done = callback(id, time, exitCodeForNni(id, exitCode));
        recordEnd(this, id, time, exitCode);
        return done;
    });
    return original.call(this);
}

// Where a trial cannot start yet (no free GPU, a lost machine), NNI puts its parameters into the shared queue, which
// swaps them. Here it is tried again with the same id until it starts, each time on the next environment.
async function createUntilItStarts(service, createTrial, wanted, command, directory, sequence, id) {
    const form = forms.get(id);
    for (let envId = wanted; ; envId = undefined) {
        const environment = await findEnvironment(service, envId);
        if (stopping) {
            return new Promise(() => {}); // the process is about to end; nothing may start any more
        }
        service.allocatedParameters.set(id, form.hyperParameters.value); // a trial may ask at once
        if (await startsTrial(service, createTrial, [environment, command, directory, sequence, id])) {
            form.envId = environment; // NNI reads it afterwards
            return stopping ? stopLateTrial(service, id) : id;
        }
        await sleep(RETRY_MS);
    }
}

async function findEnvironment(service, envId) {
    if (service.environments.some(environment => environment.id === envId)) {
        return envId;
    }
    let next = service.schedule();
    while (next === null) { // no machine is there at the moment
        await sleep(RETRY_MS);
        next = service.schedule();
    }
    return next;
}

async function startsTrial(service, createTrial, args) {
    try {
        return await createTrial.apply(service.v3, args) !== null;
    } catch (error) {
        console.error('runner/preload.js: a trial could not start:', error);
        return false;
    }
}

// A trial that came up while the experiment was being stopped has missed NNI's round of cancelling.
async function stopLateTrial(service, id) {
    await causeOfCancel.run('stopping', () => service.cancelTrialJob(id, false)).catch(() => {});
    return new Promise(() => {});
}

// NNI notes that a trial is stopped early only after it has ended, which is too late for its status. A trial is
// signalled once: a second SIGINT would hit it while it writes its record.
async function cancelTrialJob(original, id, isEarlyStopped) {
    const trial = this.trialJobs[id];
    if (trial !== undefined && trial.endTime === undefined && !causes.has(id)) {
        trial.isEarlyStopped = Boolean(isEarlyStopped);
        causes.set(id, causeOfCancel.getStore() ?? 'user');
    }
    if (!cancelling.has(id)) {
        const done = original.call(this, id, trial?.isEarlyStopped).finally(() => cancelling.delete(id));
        cancelling.set(id, done);
    }
    return cancelling.get(id);
}

// NNI's loop compares and stores a trial's status across awaits, in which a live object may change, so that an end is
// acted on but never stored; hence a copy. And no end may overtake the trial's metrics on their way to database and
// tuner: NNI's TPE dies of a result that comes after the end, and the search then hangs for ever. Once the experiment is being stopped, interrupted trials stay RUNNING in the database: a resume repeats them.
async function getTrialJob(original, id) {
    if (stopping) {
        return new Promise(() => {});
    }
    while (storing.has(id)) {
        await storing.get(id);
    }
    const trial = { ...await original.call(this, id) };
    if (!['WAITING', 'RUNNING', 'UNKNOWN'].includes(trial.status)) {
        ended.add(id); // NNI tells the tuner next
    }
    return trial;
}

// Whether a trial has reported a finite number, or a dict with one as "default": NNI's tuners die of anything else.
function isUsable(data) {
    try {
        const value = JSON.parse(JSON.parse(data).value); // NaN and Infinity are no JSON
        return Number.isFinite(value?.default ?? value);
    } catch {
        return false;
    }
}

// NNI drops metrics of a trial that it has not entered into its list yet, or no longer has there. The training service
// knows each trial from its start on. A metric that comes after the end is stored, but kept from the tuner.
async function onTrialJobMetrics(original, metric) {
    if (!isUsable(metric.data)) {
        console.error('runner/preload.js: not a finite number, nor a dict with one as "default":', metric.data);
        return;
    }
    if (metric.data.includes('"FINAL"')) {
        finals.add(metric.id);
    }
    const known = this.trainingService?.trialJobs?.[metric.id] !== undefined;
    const manager = known ? Object.create(this, { trialJobs: { value: new Set([metric.id]) } }) : this;
    if (ended.has(metric.id)) {
        Object.defineProperty(manager, 'dispatcher', { value: { sendCommand() {} } });
    }
    const stored = original.call(manager, metric);
    const done = Promise.allSettled([storing.get(metric.id), stored]).then(() => {
        if (storing.get(metric.id) === done) {
            storing.delete(metric.id);
        }
    });
    storing.set(metric.id, done);
    return stored;
}

// NNI numbers the new trials of a resumed experiment from 1, or from behind those that it runs again.
function addRecoveredTrialJob(original, trials) {
    const next = this.experimentProfile.nextSequenceId;
    const recovered = original.call(this, trials);
    this.experimentProfile.nextSequenceId = Math.max(next, this.experimentProfile.nextSequenceId);
    return recovered;
}

// NNI waits for the tuner first, up to 30 s, and then ends one trial after the other, each up to 5 s.
async function stopExperiment(original) {
    stopping = true;
    const trials = await this.trainingService?.listTrialJobs() ?? [];
    for (const trial of trials.filter(({ status }) => ['WAITING', 'RUNNING'].includes(status))) {
        causeOfCancel.run('stopping', () => this.trainingService.cancelTrialJob(trial.id)).catch(() => {});
    }
    return causeOfCancel.run('stopping', () => original.call(this));
}

// The trial keeper learns which signal ended a trial, but does not pass it on.
function resolveStop(original, event, code, signal, timestamp) {
    if (signal && !signals.has(this.id)) {
        signals.set(this.id, signal);
    }
    return original.call(this, event, code, signal, timestamp);
}

// A trial that NNI has cancelled is cancelled, whatever error status it left; one that was killed from outside has
// failed (plain NNI: "cancelled by the user").
function exitCodeForNni(id, exitCode) {
    if (causes.has(id) || stopping) {
        return exitCode === 0 ? 0 : null;
    }
    return exitCode ?? (signals.has(id) ? 128 + os.constants.signals[signals.get(id)] : null);
}

async function waitForTuner() {
    const late = () => this.connect.reject(new Error(`the tuner did not connect in ${TUNER_MS / 1000} seconds`));
    const timer = setTimeout(late, TUNER_MS);
    await this.connect.promise;
    clearTimeout(timer);
}

// NNI's TensorBoard button looks for a trial's logs in a folder to which no trial of NNI 3.0 writes.
async function getTrialOutputLocalPath(original, id) {
    return this.trialJobs[id] === undefined ? original.call(this, id) : this.v3.downloadTrialDirectory(id);
}

// NNI serves TensorBoard on every interface, to everybody; and its command, which a shell runs, fails if a path has a
// blank or no virtual environment is active. Of NNI's command, ['tensorboard', '--bind_all --logdir_spec=...',
// '--port=...'], the option, the folders and the port are kept. The secret goes by the environment.
function tensorboardCommand(python, [, logdir, port]) {
    const [option, folders] = [logdir.slice(0, logdir.indexOf('=')), logdir.slice(logdir.indexOf('=') + 1)];
    const where = [option.replace('--bind_all ', ''), quoted(folders), port];
    return ['exec', quoted(python), '-P', quoted(TENSORBOARD), '--load_fast=false --host', LOOPBACK, ...where];
}

// The web UI opens http://<host>:<what is called port here>. It is answered once this user's TensorBoard listens there:
// at a port that somebody else has taken meanwhile the browser would hand over the secret.
async function nameTensorboardAddress(original, ...args) {
    const own = crypto.randomBytes(16).toString('hex');
    secrets.push(own);
    const task = await tensorboardOf.run(own, () => original.apply(this, args));
    const deadline = Date.now() + TENSORBOARD_MS;
    let users = listeners(Number(task.port));
    while (users?.length === 0 && Date.now() < deadline) {
        await sleep(POLL_MS);
        users = listeners(Number(task.port));
    }
    if (users !== null && (users.length === 0 || users.some(user => user !== process.getuid()))) {
        await this.killTensorboardTaskProc(task);
        throw new Error(`TensorBoard did not come up at port ${task.port}`);
    }
    task.port += `/${own}/`;
    return task;
}

function quoted(text) {
    return `'${text.replaceAll("'", "'\\''")}'`;
}

function recordStart(id, time) {
    const { sequenceId, hyperParameters } = forms.get(id);
    const { parameter_id, parameters } = JSON.parse(hyperParameters.value);
    const machine = machines.get(id);
    record({ event: 'start', trial: id, sequence: sequenceId, parameter_id, parameters, time: time / 1000, machine });
}

function recordEnd(service, id, time, exitCode) {
    const cause = causes.get(id) ?? (stopping ? 'stopping' : null);
    const { status } = service.trialJobs[id];
    const signal = signals.get(id) ?? null;
    const final = finals.has(id);
    record({ event: 'end', trial: id, time: time / 1000, exit_code: exitCode ?? null, signal, final, status, cause });
}
