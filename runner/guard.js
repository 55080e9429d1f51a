'use strict';
// NNI's REST servers ask nobody who they are: any user of the machine, and any page in a browser there, could read
// files and steer the search. Here a server answers only who knows its secret, which begins the path of every request,
// as the token of a Jupyter server. The manager (preload.js) and the keeper on another machine (keeper.js) need this.

const crypto = require('crypto');
const fs = require('fs');
const http = require('http');
const { LOOPBACK } = require('./shared.js');

const ANSWERING = ['request', 'checkContinue', 'checkExpectation', 'upgrade', 'connect']; // events of a server
const OWN_HOST = /^(127\.0\.0\.1|localhost|\[::1\])(:\d+)?$/; // of any port: a tunnel may end at another
const HIDDEN = '<secret>';
const MOST_STRANGERS = 512; // connections that have not shown the secret yet; more would use up the files that we may open
const CONNECTIONS = '/proc/net/tcp';
const LISTENS = '0A'; // as the kernel has it

// Have all servers of this process refuse what lacks the secret, before anything else sees it.
function guardServers(secret) {
    const { emit } = http.Server.prototype;
    const strangers = new Set();
    http.Server.prototype.emit = function (event, ...args) {
        if (event === 'connection') {
            admit(strangers, args[0]);
        }
        if (!ANSWERING.includes(event)) {
            return emit.call(this, event, ...args);
        }
        const [request, answer] = args; // of an upgrade the answer is the socket
        const reason = whyRefused(request, secret);
        if (reason) {
            refuse(answer, reason);
            return true;
        }
        strangers.delete(request.socket);
        answer.setHeader?.('Referrer-Policy', 'no-referrer'); // a page's address holds the secret
        return emit.call(this, event, ...args);
    };
}

function admit(strangers, socket) {
    strangers.add(socket);
    socket.once('close', () => strangers.delete(socket));
    if (strangers.size > MOST_STRANGERS) {
        const [oldest] = strangers;
        strangers.delete(oldest);
        oldest.destroy();
    }
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
    if (path.startsWith(`/${secret}/netron`)) { // NNI hands another site's pages on, scripts and all
        return 'netron is not offered';
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

// Which users listen at a port of the loopback; null where that cannot be told.
function listeners(port) {
    if (!fs.existsSync(CONNECTIONS)) {
        return null;
    }
    const wanted = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
    const rows = fs.readFileSync(CONNECTIONS, 'utf8').trim().split('\n').slice(1).map(line => line.trim().split(/\s+/));
    const found = rows.filter(([, local, , state]) => state === LISTENS && /^(0100007F|00000000):/.test(local) &&
        local.endsWith(wanted));
    return found.map(row => Number(row[7]));
}

module.exports = { getFullUrl, guardServers, hideSecrets, listeners };
