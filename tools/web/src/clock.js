// The time that all shown motions share.

const RESERVE = 0.4; // seconds of frames not played yet

export class Clock {
  constructor() {
    this.time = 0;
    this.end = 1;
    this.fps = 30;
    this.speed = 1;
    this.playing = true;
    this.loop = true;
    this.growing = false;
  }

  // From the start, until the longest of `clips` ends.
  load(clips) {
    this.time = 0;
    this.extend(clips);
  }

  // The same clips have got longer, or are complete.
  extend(clips) {
    const longest = clips.reduce((a, b) => (b.duration > a.duration ? b : a));
    this.end = longest.duration;
    this.fps = longest.fps;
    this.frames = longest.frames;
    this.growing = clips.some(({ growing }) => growing);
  }

  // The frame that is seen now, from 0.
  get frame() {
    return Math.min(this.frames - 1, Math.floor(this.time * this.fps + 1e-6));
  }

  advance(seconds) {
    if (!this.playing) return;
    // Where frames come slower than they are played, time slows down instead of halting again and again.
    const pace = this.growing ? Math.min(1, Math.max(0, this.end - this.time) / RESERVE) : 1;
    this.time += seconds * this.speed * pace;
    if (this.time < this.end) return;
    if (this.growing) {
      this.time = this.end; // waits for more
      return;
    }
    this.time = this.loop ? this.time % this.end : this.end;
    this.playing = this.loop;
  }

  // Starts again where a motion that is not looped has come to its end.
  toggle() {
    this.playing = !this.playing;
    if (this.playing && this.time >= this.end) this.time = 0;
  }

  seek(seconds) {
    this.time = Math.min(Math.max(seconds, 0), this.end);
  }

  // To an exact frame, so that what is seen is data and not an interpolation; wraps at both ends.
  step(frames) {
    this.playing = false;
    this.time = ((((this.frame + frames) % this.frames) + this.frames) % this.frames) / this.fps;
  }
}
