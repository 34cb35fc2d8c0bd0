// The page of `hftrainer serve`: connects the composer, the player, the history and the server.
//
// document.body.dataset.state is "ready" once the models are known.

import { Composer } from "./composer.js";
import { byId } from "./dom.js";
import { Downloads } from "./downloads.js";
import { History } from "./history.js";
import { Jobs } from "./jobs.js";
import { Live } from "./live.js";
import { Player } from "./player.js";
import { Server } from "./server.js";
import { followTheme } from "./theme.js";

const server = new Server(askToken);
const downloads = new Downloads(server);
const composer = new Composer({ make, cancel: () => current?.cancel().catch(say), say: (text) => live.send(text) });
const player = new Player({
  shown: () => history.mark(player.viewer.entries.map(({ clip, color }) => ({ motion: ofClip(clip), color: color.accent }))),
  drawn,
  next: (step) => playNext(step),
  download: (motion) => downloads.open(motion),
});
const history = new History({
  play: (motion) => open([motion]),
  compare: (motion) => ready(motion).then(() => player.toggle(motion), say),
  download: (motion) => downloads.open(motion),
  again: ({ request }) => reuse(request),
  remove,
});
const jobs = new Jobs(server, {
  added: (motion) => {
    history.add(motion);
    if (motion.job === current) player.play(current.motions);
  },
  grown: (motion) => {
    player.grown(motion);
    history.update(motion);
  },
  changed: (job) => {
    for (const motion of job.motions) history.update(motion);
    if (job === current) composer.follow(job);
  },
});
const live = new Live(server, player, {
  say: (text) => composer.say(text),
  model: () => byId("model").value,
  number: () => ++jobs.count,
});
let models = new Map();
let current = null; // the job that the composer waits for

followTheme(player.viewer);
start().catch(say);

async function start() {
  const told = await server.get("/v1/models");
  models = new Map(told.models.map((model) => [model.name, model]));
  byId("model").replaceChildren(...told.models.map(({ name }) => new Option(name, name, false, name === told.default)));
  byId("model").addEventListener("change", () => setModel(byId("model").value).catch(say));
  await setModel(byId("model").value);
  await jobs.load();
  document.body.dataset.state = "ready";
  const running = jobs.all.findLast((job) => !job.over);
  if (running) await wait(running);
}

async function setModel(name) {
  byId("model").title = models.get(name).title;
  composer.setModel(models.get(name));
  const { verbs } = await server.get(`/v1/models/${encodeURIComponent(name)}/vocabulary`);
  if (byId("model").value === name) composer.vocabulary.show(verbs);
}

async function make(request) {
  live.end("Live motion stopped.");
  composer.setBusy(true);
  try {
    await wait(await jobs.start({ ...request, model: byId("model").value }));
  } catch (error) {
    composer.setBusy(false);
    say(error);
  }
}

// Plays what a job makes while it makes it.
async function wait(job) {
  current = job;
  composer.setBusy(true);
  composer.follow(job);
  if (job.motions.length) player.play(job.motions);
  await job.follow();
  if (current !== job) return;
  current = null;
  composer.setBusy(false);
  composer.warn(job.motions.find(({ known, made }) => known === false || made?.warnings?.length) ?? null);
}

// The frames of a motion that was made before this page was opened.
async function ready(motion) {
  if (motion.job && !motion.clip) await motion.job.follow();
}

async function open(motions) {
  try {
    await Promise.all(motions.map(ready));
    player.play(motions);
    composer.warn(motions[0]);
  } catch (error) {
    say(error);
  }
}

function playNext(step) {
  const { motions } = history;
  if (!motions.length) return;
  const here = motions.indexOf(player.motions[0]);
  open([motions[(here + step + motions.length) % motions.length]]);
}

function reuse(request) {
  if (models.has(request.model) && request.model !== byId("model").value) {
    byId("model").value = request.model;
    setModel(request.model).catch(say);
  }
  composer.set(request);
}

async function remove(job) {
  try {
    if (!job.over) await job.cancel();
    await jobs.forget(job);
  } catch (error) {
    if (error.status !== 404) return say(error);
  }
  history.remove(job);
  composer.say("Removed.");
}

function drawn(motions, seconds) {
  live.drawn(seconds);
  for (const motion of motions) titleBySegment(motion, seconds);
  const parts = motions.length === 1 ? motions[0].job?.request.timeline : null;
  composer.timeline.playAt(parts && composer.timeline.lasts(parts) ? seconds : null);
}

// A timeline's figure is labelled with the part that it does now.
function titleBySegment({ clip, job, segments }, seconds) {
  const parts = segments ?? job?.request.timeline;
  if (!parts || !clip?.frames) return;
  let end = 0;
  const { prompt } = parts.find((part) => seconds < (end += part.seconds)) ?? parts.at(-1);
  if (clip.title !== prompt) player.viewer.retitle(clip, prompt);
}

function ofClip(clip) {
  return player.motions.find((motion) => motion.clip === clip);
}

function say(error) {
  composer.say(error.message ?? String(error));
}

function askToken() {
  const dialog = byId("token");
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    byId("token-form").addEventListener("submit", (event) => {
      event.preventDefault();
      dialog.close();
      resolve(byId("token-value").value.trim());
    }, { once: true });
    dialog.addEventListener("cancel", (event) => event.preventDefault());
  });
}
