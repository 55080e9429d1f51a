'use strict';
// Repairs of NNI 3.0 that its manager (preload.js) and the trial keeper on another machine (keeper.js) both need.

const net = require('net');

const LOOPBACK = '127.0.0.1';

// NNI's REST server, which asks for no password, listens on every interface and has no option to change that.
function listenOnLoopback() {
    const { listen } = net.Server.prototype;
    net.Server.prototype.listen = function (...args) {
        return listen.apply(this, withHost(args));
    };
}

function withHost([first, ...rest]) {
    if (first !== null && typeof first === 'object') { // options, or a handle (which has no port)
        const options = first.port !== undefined && !first.host && !first.path ? { ...first, host: LOOPBACK } : first;
        return [options, ...rest];
    }
    if (first === undefined || first === null || typeof first === 'function') { // any port
        return [0, LOOPBACK, ...[first, ...rest].filter(argument => typeof argument === 'function')];
    }
    const isPort = !Number.isNaN(Number(first)); // otherwise the path of a socket
    return isPort && typeof rest[0] !== 'string' ? [first, LOOPBACK, ...rest] : [first, ...rest];
}

// NNI refuses a request for as many GPUs as there are, so that one GPU never gets a trial. And it numbers GPUs as
// nvidia-smi does, whereas CUDA, unless told, numbers them by their speed.
async function schedule(original, experimentId, trialId, gpuNumber, restrictions) {
    const isTheOnly = gpuNumber === 1 && this.gpus.length === 1;
    const environ = await original.call(this, experimentId, trialId, isTheOnly ? 0.999 : gpuNumber, restrictions);
    return environ && { ...environ, CUDA_DEVICE_ORDER: 'PCI_BUS_ID' };
}

module.exports = { LOOPBACK, listenOnLoopback, schedule };
