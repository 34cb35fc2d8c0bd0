// Live mode: an endless motion; what is typed is what the figure does next.

import { byId, el } from "./dom.js";

const { GrowingClip } = globalThis.hftrainerViewer;
const KEPT = 40; // seconds of the past that can be seen again
const FORGOTTEN = 20; // at a time

export class Live {
  // `player` shows the motion; say(text) tells the reader; model() names the model, number() the motion.
  constructor(server, player, { say, model, number }) {
    Object.assign(this, { server, player, say, model, number, socket: null });
    byId("live-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send(byId("live-say").value.trim());
    });
    byId("live-stop").addEventListener("click", () => this.stop());
  }

  get running() {
    return this.socket !== null;
  }

  send(text) {
    if (!text) return byId("live-say").focus();
    byId("live-say").value = "";
    byId("live-log").prepend(el("li", {}, text));
    while (byId("live-log").children.length > 50) byId("live-log").lastElementChild.remove();
    if (!this.running) return this.start(text);
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ say: text }));
    else this.first = text;
  }

  start(text) {
    this.first = text;
    this.motion = { clip: null, prompt: text, number: this.number(), seed: null, job: null, made: null };
    this.turns = []; // [frame, prompt] where the text changed
    this.dropped = 0;
    this.problem = null;
    const socket = (this.socket = this.server.socket(`/v1/live?model=${encodeURIComponent(this.model())}`));
    socket.addEventListener("open", () => socket.send(JSON.stringify({ say: this.first })));
    socket.addEventListener("message", ({ data }) => socket === this.socket && this.take(JSON.parse(data)));
    socket.addEventListener("close", () => socket === this.socket && this.end(this.problem ?? "The server ended the live motion."));
    this.player.play([this.motion]);
    this.show();
    this.say("Live. Type what happens next.");
  }

  take({ ready, fps, positions, prompt, start, error, message }) {
    if (error) this.say((this.problem = message)); // where it is the end, the socket closes
    if (ready) this.motion.clip = new GrowingClip({ title: this.motion.prompt, fps }, this.motion.number - 1);
    if (!positions) return;
    const { clip } = this.motion;
    if (this.turns.at(-1)?.[1] !== prompt) this.turns.push([start, prompt]);
    clip.append(positions);
    this.player.grown(this.motion);
    if (clip.duration > KEPT) {
      this.dropped += FORGOTTEN * clip.fps;
      this.player.viewer.forget(clip, FORGOTTEN * clip.fps);
    }
  }

  // The text of the frames that are seen now, which is older than the last one typed.
  drawn(seconds) {
    if (!this.motion?.clip?.frames) return;
    const frame = this.dropped + seconds * this.motion.clip.fps;
    const [, prompt] = this.turns.findLast(([start]) => start <= frame + 1) ?? this.turns[0];
    if (prompt === this.motion.prompt) return;
    this.motion.prompt = prompt;
    this.player.viewer.retitle(this.motion.clip, prompt);
    this.player.describe();
    this.say(`Now: ${prompt}`);
  }

  stop() {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ stop: true }));
    this.end("Live motion stopped. It can still be played.");
  }

  end(text) {
    if (!this.running) return;
    const { socket } = this;
    this.socket = null;
    socket.close();
    this.motion.clip?.finish();
    if (this.motion.clip) this.player.grown(this.motion);
    this.show();
    this.say(text);
  }

  show() {
    byId("live-send").textContent = this.running ? "Send" : "Start";
    byId("live-stop").hidden = !this.running;
    byId("live-say").focus();
  }
}
