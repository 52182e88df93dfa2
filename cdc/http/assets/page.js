'use strict';

// Everything that comes from the publisher is put in as text, never as markup: names of topics are anybody's.

const WINDOW = 300;       // seconds that the charts show, at the most
const PATIENCE = 5000;    // milliseconds until a request is given up
const PAUSES = [1000, 1000, 2000, 4000, 8000, 15000]; // after so many failures
const TOPICS = 50;
const STATES = {
  starting: ['busy', 'starting'], idle: ['good', 'idle'], streaming: ['good', 'streaming'],
  catching_up: ['busy', 'catching up'], standby: ['quiet', 'standby'],
  recovering: ['busy', 'recovering'],
  blocked_by_kafka: ['warn', 'blocked by Kafka'], blocked_by_registry: ['warn', 'blocked by the registry'],
  blocked_by_postgres: ['warn', 'blocked by PostgreSQL'],
  stalled: ['bad', 'stalled'], slot_lost: ['bad', 'slot lost'], failed: ['bad', 'failed'],
  stopping: ['quiet', 'stopping'], stopped: ['quiet', 'stopped'],
};
const CIRCLE = 'M12 2.5a9.5 9.5 0 1 0 0 19a9.5 9.5 0 1 0 0-19';
const MARKS = {
  good: `${CIRCLE}M7.8 12.4l2.9 2.9l5.6-6`, busy: `${CIRCLE}M12 7v5.2l3.4 2`, quiet: `${CIRCLE}M9.5 8.5v7M14.5 8.5v7`,
  warn: 'M12 3.2L2.6 20h18.8zM12 9.6v4.6M12 17v.1', bad: `${CIRCLE}M8.8 8.8l6.4 6.4M15.2 8.8l-6.4 6.4`,
};
const COLOURS = { good: '#1e9e57', busy: '#2f6fed', warn: '#d98a1c', bad: '#d93a30', quiet: '#8793a5' };

// Values for people; what is not known is a dash.

const number = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const known = format => value => (value === null || value === undefined ? '–' : format(value));
const count = known(value => number.format(value));
const rate = known(value => (value > 0 && value < 9.95 ? value.toFixed(1) : number.format(value)));
const bytes = known(value => {
  let unit = 0;
  while (value >= 1024 && unit < 5) { value /= 1024; unit += 1; }
  return `${unit && value < 99.95 ? value.toFixed(1) : number.format(value)} ${['B', 'kB', 'MB', 'GB', 'TB', 'PB'][unit]}`;
});
const milliseconds = known(value => {
  if (value >= 999.5) return seconds(value / 1000);
  return value > 0 && value < 9.95 ? `${value.toFixed(1)} ms` : `${Math.round(value)} ms`;
});
const seconds = known(value => {
  if (value < 9.95) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 172800) return `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`;
  return `${Math.floor(whole / 86400)} days ${Math.floor(whole % 86400 / 3600)} h`;
});
const ago = value => (value < 2 ? 'just now' : `${seconds(value)} ago`);
const clock = unix => new Date(unix * 1000).toLocaleTimeString('en-GB');
const events = value => `${count(value)} ${value === 1 ? 'event' : 'events'}`;
const unix = text => Date.parse(text) / 1000;

// The document.

const element = id => document.getElementById(id);
const put = (target, text) => {
  const node = typeof target === 'string' ? element(target) : target;
  if (node.textContent !== text) node.textContent = text;
};
const make = (name, text = '', kind = '') => {
  const node = document.createElement(name);
  node.textContent = text;
  if (kind) node.className = kind;
  return node;
};
const draw = (name, attributes) => {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};

function showState(reported) {
  const [tone, words] = STATES[reported.state] || ['quiet', String(reported.state)];
  const prefix = `${words}: `;
  element('hero').dataset.tone = tone;
  element('mark').setAttribute('d', MARKS[tone]);
  put('state', words);
  put('said', `The publisher is ${words}.`);
  put('summary', reported.summary.startsWith(prefix) ? reported.summary.slice(prefix.length) : reported.summary === words ? '' : reported.summary);
  put('ready', reported.ready ? 'ready' : 'not ready');
  put('since', `in this state for ${seconds(Math.max(0, unix(reported.time) - unix(reported.since)))}`);
  put('slot-kind', reported.polling ? 'relay' : 'slot');
  put('slot-name', reported.slot.name);
  document.title = `${words} · ${reported.slot.name} · cdc-publisher`;
  setIcon(COLOURS[tone]);
}

function setIcon(colour) {
  const drawing = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="${colour}"/></svg>`;
  const address = `data:image/svg+xml,${encodeURIComponent(drawing)}`;
  if (element('icon').href !== address) element('icon').href = address;
}

function showError(reported) {
  const error = reported.last_error;
  element('error').hidden = !error;
  if (!error) return;
  const age = Math.max(0, unix(reported.time) - unix(error.time));
  element('error').classList.toggle('old', age > WINDOW);
  put('error-when', `· ${ago(age)}`);
  put('error-kind', error.kind);
  put('error-message', error.message);
}

function showTiles(reported) {
  const { lag, latency, slot, totals } = reported;
  const flight = reported.in_flight;
  put('rate', rate(reported.rate.events_per_second));
  put('rate-more', `${rate(reported.rate.transactions_per_second)} transactions, ${bytes(reported.rate.bytes_per_second)} per second`);
  put('lag', seconds(lag.seconds));
  put('lag-more', reported.polling ? events(lag.events) : `${bytes(lag.bytes)} of WAL, ${events(lag.events)}`);
  put('p50', milliseconds(latency.p50_ms));
  put('latency-more', latency.count ? `95 %: ${milliseconds(latency.p95_ms)}, 99 %: ${milliseconds(latency.p99_ms)}` : 'no transactions yet');
  put('flight', count(flight.events));
  put('flight-more', flight.transactions
    ? `in ${count(flight.transactions)} transactions, oldest ${seconds(flight.oldest_seconds)}` : 'no event waits for Kafka');
  put('delivered', count(totals.delivered));
  put('delivered-more', `events in ${count(totals.transactions)} transactions`);
  if (reported.polling) showRows(reported.polling);
  else showRetained(slot);
}

// Of a relay that queries the table, in place of the WAL of a slot.
function showRows(polling) {
  put('retained-title', 'Rows in no batch');
  put('retained', count(polling.unbatched_rows));
  put('retained-more', polling.strays ? `${count(polling.strays)} strays: see check`
    : polling.oldest_row_seconds ? `the oldest ${seconds(polling.oldest_row_seconds)} old` : 'no row waits for a query');
}

function showRetained(slot) {
  const { retained_bytes: retained, limit_bytes: limit } = slot;
  const share = limit ? Math.min(100, 100 * (retained || 0) / limit) : 0;
  const bar = element('retained-bar');
  put('retained', bytes(retained));
  put('retained-more', limit ? `${share.toFixed(share < 10 ? 1 : 0)} % of ${bytes(limit)} allowed` : 'no limit set');
  bar.hidden = !limit;
  bar.dataset.tone = share >= 80 ? 'bad' : share >= 50 ? 'warn' : 'good';
  bar.setAttribute('aria-valuenow', share.toFixed(0));
  bar.firstElementChild.style.width = `${share}%`;
}

function showTopics(topics) {
  const rows = Object.entries(topics).sort(([a, x], [b, y]) =>
    y.events_per_second - x.events_per_second || y.events - x.events || (a < b ? -1 : 1));
  element('topics').replaceChildren(...rows.slice(0, TOPICS).map(([name, topic]) => {
    const row = make('tr');
    row.append(make('td', name), make('td', count(topic.events)),
      make('td', bytes(topic.bytes), 'wide'), make('td', rate(topic.events_per_second)));
    return row;
  }));
  const more = rows.length - TOPICS;
  put('topics-more', more > 0 ? `and ${count(more)} more in status` : rows.length ? '' : 'No events have been sent yet.');
}

function showList(id, pairs) {
  element(id).replaceChildren(...pairs.flatMap(([name, value]) => [make('dt', name), make('dd', value)]));
}

function showAbout(reported) {
  const { slot, totals } = reported;
  const publisher = reported.publisher || {};
  const { polling } = reported;
  element('chart-lag').hidden = Boolean(polling); // there is no WAL to lag in
  if (polling) put('slot-title', 'Relay');
  showList('about-slot', polling ? [
    ['name', slot.name], ['stream', slot.stream || '–'], ['queries with new rows', count(polling.ticks)],
    ['last batch', `${count(polling.batch_rows)} rows in ${seconds(polling.batch_seconds)}`],
    ['open batches', count(polling.open_ticks)], ['strays', count(polling.strays)],
    ['numbers given out', count(polling.numbers)], ['rows in confirmed batches', count(polling.batched_rows)],
  ] : [
    ['name', slot.name], ['publication', slot.publication], ['stream', slot.stream || '–'],
    ['confirmed', slot.confirmed || '–'], ['last moved', slot.confirmed_age_seconds === null ? '–' : ago(slot.confirmed_age_seconds)],
    ['end of WAL', slot.wal_end || '–'], ['WAL', slot.wal_status || '–'],
    ['left until the limit', slot.limit_bytes ? bytes(slot.safe_bytes) : 'no limit'],
  ]);
  showList('about-process', [
    ['version', reported.version], ['guarantee', publisher.guarantee || '–'], ['accelerator', publisher.accelerator || '–'],
    ['process', String(publisher.pid ?? '–')], ['uptime', seconds(publisher.uptime_seconds)],
    ['sessions', count(publisher.sessions)], ['reconnects', count(publisher.reconnects)],
    ['encoding a row', reported.encode.mean_us ? `${reported.encode.mean_us.toFixed(1)} µs` : '–'],
  ]);
  showList('about-totals', [
    ['events', count(totals.events)], ['bytes', bytes(totals.bytes)], ['transactions', count(totals.transactions)],
    ['poison', count(totals.poison)], ['dead letters', count(totals.dead_letters)],
    ['replays skipped', count(totals.skipped_replays)], ['sent again', count(totals.sent_again)],
    ...otherMessages(reported.other_messages || {}),
  ]);
  put('version', `Version ${reported.version}.`);
}

// Logical messages that are no events, where there are any.
function otherMessages(prefixes) {
  const total = Object.values(prefixes).reduce((sum, each) => sum + each, 0);
  return total ? [['other messages', count(total)]] : [];
}

// Charts: one curve each over the last minutes, on a scale from 0 to a round number.

class Chart {
  constructor(id, format, steps) {
    this.format = format;
    this.steps = steps;
    this.figure = element(id);
    this.output = this.figure.querySelector('output');
    this.name = this.figure.querySelector('h3').textContent;
    this.svg = draw('svg', { viewBox: '0 0 300 100', preserveAspectRatio: 'none', role: 'img' });
    for (const y of [0, 50, 100]) this.svg.append(draw('line', { class: 'grid', x1: 0, x2: 300, y1: y, y2: y }));
    this.area = draw('path', { class: 'area' });
    this.curve = draw('path', { class: 'curve' });
    this.cursor = draw('line', { class: 'cursor', y1: 0, y2: 100, visibility: 'hidden' });
    this.svg.append(this.area, this.curve, this.cursor);
    this.top = make('span', '', 'top-label');
    const plot = make('div', '', 'plot');
    plot.append(this.svg, this.top);
    const axis = make('div', '', 'axis');
    this.begin = make('span');
    axis.append(this.begin, make('span', 'now'));
    this.figure.append(plot, axis);
    this.points = [];
    this.pointed = null;
    this.span = WINDOW;
    plot.addEventListener('pointermove', event => this.point(event, plot));
    plot.addEventListener('pointerleave', () => { this.pointed = null; this.tell(); });
  }

  show(times, values, now) {
    this.now = now;
    this.points = times.map((time, index) => [time, values[index]]).filter(([time]) => time > now - WINDOW);
    const minutes = Math.ceil((now - (this.points[0]?.[0] ?? now)) / 60); // a young publisher has a narrower chart
    this.span = Math.min(WINDOW, 60 * Math.max(1, minutes));
    put(this.begin, `${this.span / 60} min ago`);
    const highest = Math.max(0, ...this.points.map(([, value]) => value ?? 0));
    const scale = this.round(highest);
    put(this.top, highest > 0 ? this.format(scale).replace('.0 ', ' ') : '');
    const lines = this.lines().map(line => line.map(([time, value]) => [this.x(time), 100 - 100 * value / scale]));
    const path = line => line.map(([x, y]) => `${x.toFixed(2)} ${y.toFixed(2)}`).join('L');
    this.curve.setAttribute('d', lines.map(line => `M${path(line)}`).join(''));
    this.area.setAttribute('d', lines.map(line => `M${line[0][0].toFixed(2)} 100L${path(line)}L${line.at(-1)[0].toFixed(2)} 100Z`).join(''));
    this.svg.setAttribute('aria-label', `${this.name}, last ${this.span / 60} minutes: now ${this.format(this.last())}, highest ${this.format(highest)}`);
    this.tell();
  }

  x(time) { return 300 * Math.max(0, 1 - (this.now - time) / this.span); }

  last() { return this.points.length ? this.points.at(-1)[1] : null; }

  // Where nothing was measured there is no line.
  lines() {
    const lines = [];
    let before = -Infinity;
    for (const [time, value] of this.points) {
      if (value === null || value === undefined) continue;
      if (time - before > 5) lines.push([]);
      lines.at(-1).push([time, value]);
      before = time;
    }
    return lines;
  }

  round(highest) {
    if (highest <= 0) return 1;
    const base = this.steps ** Math.floor(Math.log(highest) / Math.log(this.steps));
    const factors = [1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 40, 50, 60, 80, 100, 150, 200, 300, 400, 500, 600, 800, 1024];
    return base * factors.find(factor => factor * base >= highest * .999);
  }

  point(event, plot) {
    const box = plot.getBoundingClientRect();
    this.pointed = this.now - this.span * (1 - (event.clientX - box.left) / box.width);
    this.tell();
  }

  tell() {
    const near = this.pointed === null ? null : this.nearest(this.pointed);
    this.cursor.setAttribute('visibility', near ? 'visible' : 'hidden');
    if (near) for (const end of ['x1', 'x2']) this.cursor.setAttribute(end, this.x(near[0]));
    put(this.output, near ? `${clock(near[0])} · ${this.format(near[1])}` : this.format(this.last()));
  }

  nearest(time) {
    const far = point => Math.abs(point[0] - time);
    return this.points.reduce((best, point) => (best && far(best) <= far(point) ? best : point), null);
  }
}

const charts = [
  [new Chart('chart-rate', rate, 10), 'events_per_second'],
  [new Chart('chart-lag', bytes, 1024), 'lag_bytes'],
  [new Chart('chart-latency', milliseconds, 10), 'latency_ms'],
];

// Asking, and what the page shows without an answer.

let failures = 0;
let answered = null; // when, by this machine's clock
let timer = null;

function show(reported) {
  showState(reported);
  showError(reported);
  showTiles(reported);
  showTopics(reported.topics);
  showAbout(reported);
  for (const [chart, key] of charts) chart.show(reported.history.times, reported.history[key], unix(reported.time));
  put('updated', `at ${clock(unix(reported.time))}`);
}

function showAnswers(answers) {
  element('live').classList.toggle('on', answers);
  element('main').classList.toggle('stale', !answers);
  element('banner').hidden = answers;
  if (answers) return;
  const known = answered === null ? '' : ` The data shown is from ${clock(answered / 1000)}.`;
  put('banner', `The publisher does not answer.${known}`);
  put('updated', answered === null ? 'no answer' : `no answer since ${clock(answered / 1000)}`);
  document.title = 'no answer · cdc-publisher';
  setIcon(COLOURS.quiet);
}

async function ask() {
  try {
    const response = await fetch('status', { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE) });
    if (!response.ok) throw new Error(`status ${response.status}`);
    show(await response.json());
    answered = Date.now();
    failures = 0;
    showAnswers(true);
  } catch (error) {
    failures += 1;
    if (failures > 1 || answered === null) showAnswers(false); // one failure may be an accident
  }
  timer = document.hidden ? null : setTimeout(ask, PAUSES[Math.min(failures, PAUSES.length - 1)]);
}

// A hidden page sends no requests.
document.addEventListener('visibilitychange', () => {
  if (!document.hidden && timer === null) ask();
});

ask();
