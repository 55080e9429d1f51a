'use strict';
// NNI's REST servers ask nobody who they are: any user of the machine, and any page in a browser there, could read
// files and steer the search. Here a server answers only who knows its secret, which begins the path of every request,
// as the token of a Jupyter server. The manager (preload.js) and the keeper on another machine (keeper.js) need this.

const crypto = require('crypto');
const http = require('http');
const { LOOPBACK } = require('./shared.js');

const ANSWERING = ['request', 'checkContinue', 'checkExpectation', 'upgrade', 'connect']; // events of a server
const OWN_HOST = /^(127\.0\.0\.1|localhost|\[::1\])(:\d+)?$/; // of any port: a tunnel may end at another
const HIDDEN = '<secret>';

// Have all servers of this process refuse what lacks the secret, before anything else sees it.
function guardServers(secret) {
    const { emit } = http.Server.prototype;
    http.Server.prototype.emit = function (event, ...args) {
        if (!ANSWERING.includes(event)) {
            return emit.call(this, event, ...args);
        }
        const [request, answer] = args; // of an upgrade the answer is the socket
        const reason = whyRefused(request, secret);
        if (reason) {
            refuse(answer, reason);
            return true;
        }
        answer.setHeader?.('Referrer-Policy', 'no-referrer'); // a page's address holds the secret
        return emit.call(this, event, ...args);
    };
}

function whyRefused({ url, headers: { host = '', origin } }, secret) {
    const [path] = url.split('?', 1);
    if (!isSame(path.split('/', 2).join('/'), `/${secret}`)) {
        return 'the address lacks its secret: take the URL that nni_main.py has printed, or nni_main.py --list prints';
    }
    if (!OWN_HOST.test(host)) { // another name that leads here: DNS rebinding
        return 'the host must be 127.0.0.1, localhost or [::1]';
    }
    if (origin !== undefined && ![`http://${host}`, `https://${host}`].includes(origin)) {
        return 'the page that asks is of another origin';
    }
    return leavesFolder(path) ? 'the path is not plain' : '';
}

function isSame(given, wanted) {
    const [first, second] = [given, wanted].map(text => crypto.createHash('sha256').update(text).digest());
    return crypto.timingSafeEqual(first, second);
}

// NNI joins parts of a path, decoded, to the path of a folder.
function leavesFolder(path) {
    for (let before = null; before !== path;) {
        if (/\.\.|[\0\\]/.test(path)) {
            return true;
        }
        before = path;
        try {
            path = decodeURIComponent(path);
        } catch {
            return true;
        }
    }
    return false;
}

function refuse(answer, reason) {
    if (answer instanceof http.ServerResponse) {
        const headers = { 'Content-Type': 'text/plain', Connection: 'close', 'Referrer-Policy': 'no-referrer' };
        answer.writeHead(403, headers).end(`${reason}\n`);
    } else {
        answer.on('error', () => {});
        answer.end('HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n', () => answer.destroy());
    }
}

// NNI's log names the secret when a server starts.
function hideSecrets(secrets, owner, ...methods) {
    for (const method of methods) {
        const original = owner[method];
        owner[method] = function (text, ...rest) {
            const hidden = typeof text !== 'string' ? text :
                secrets.reduce((shown, secret) => shown.replaceAll(secret, HIDDEN), text);
            return original.call(this, hidden, ...rest);
        };
    }
}

// NNI's own clients would try ::1 first for "localhost", where somebody else may listen at the same port.
function getFullUrl(original, protocol, ip, ...parts) {
    return original.call(this, protocol, ip === 'localhost' ? LOOPBACK : ip, ...parts);
}

module.exports = { getFullUrl, guardServers, hideSecrets };
