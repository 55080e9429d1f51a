'use strict';
// Repairs NNI 3.0's trial keeper, the Node process that runs the trials on another machine. remote.js sends this file,
// guard.js and shared.js there and starts the keeper with NODE_OPTIONS='--require "<this file>"'. What is patched here has been
// looked for in the manager's NNI, which has the same version.

const crypto = require('crypto');
const dgram = require('dgram');
const Module = require('module');
const os = require('os');
const { getFullUrl, guardServers, hideSecrets, listeners } = require('./guard.js');
const { LOOPBACK, listenOnLoopback, schedule } = require('./shared.js');

const secret = crypto.randomBytes(16).toString('hex'); // of the server that the trials there ask
const REPAIRS = {
    TrialProcess: tellSignals, TaskScheduler: giveTheOnlyGpu, RestManager: callByAddress, RestServerCore: addSecret,
    WsChannelClient: connectOnce,
};
const UNROUTED = '192.0.2.0'; // NNI asks for the way there to learn its own address

delete process.env.NODE_OPTIONS; // which trials would inherit
listenOnLoopback();
guardServers(secret);
doWithoutRoute();
repairWhenLoaded();

// Without a default route the question for that way raises, which nobody catches: the keeper dies at its start.
function doWithoutRoute() {
    const { connect } = dgram.Socket.prototype;
    dgram.Socket.prototype.connect = function (port, address, ...rest) {
        return connect.call(this, port, address === UNROUTED ? LOOPBACK : address, ...rest);
    };
}

function repairWhenLoaded() {
    const load = Module._load;
    const repaired = new Set();
    Module._load = function (...args) {
        const loaded = load.apply(this, args);
        for (const [name, repair] of Object.entries(REPAIRS)) {
            if (typeof loaded?.[name] === 'function' && !repaired.has(name)) {
                repaired.add(name);
                repair(loaded[name].prototype);
            }
        }
        return loaded;
    };
}

// The keeper tells the manager a trial's exit code only; what a signal has ended goes there as its negative number.
function tellSignals(trialProcess) {
    const { resolveStop } = trialProcess;
    trialProcess.resolveStop = function (event, code, signal, timestamp) {
        return resolveStop.call(this, event, signal ? -os.constants.signals[signal] : code, signal, timestamp);
    };
}

function giveTheOnlyGpu(taskScheduler) {
    const original = taskScheduler.schedule;
    taskScheduler.schedule = function (...args) {
        return schedule.call(this, original, ...args);
    };
}

function callByAddress(restManager) {
    const original = restManager.getFullUrl;
    restManager.getFullUrl = function (...args) {
        return getFullUrl.call(this, original, ...args);
    };
}

function addSecret(restServerCore) {
    const { start } = restServerCore;
    restServerCore.start = function () {
        hideSecrets([secret], global.nni.logStream, 'writeLine', 'writeLineSync');
        this.urlPrefix = global.nni.args.urlPrefix = secret;
        return start.call(this);
    };
}

// The tunnel's port goes with its SSH connection, and then another user may listen there, to whom NNI would connect.
// Of a machine whose connection is lost the manager starts a new keeper anyway.
function connectOnce(wsChannelClient) {
    const { connect } = wsChannelClient;
    wsChannelClient.connect = async function () {
        const users = listeners(Number(new URL(this.url).port));
        if (users !== null && (users.length === 0 || users.some(user => ![0, process.getuid()].includes(user)))) {
            throw new Error('the tunnel to the manager is gone');
        }
        return connect.call(this);
    };
    wsChannelClient.reconnect = async function () {
        this.emitter.emit('__error', new Error('Connection lost'));
    };
}
