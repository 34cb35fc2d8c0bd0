// What was asked for and what came of it. A job has one or more motions; a motion has a clip once its frames arrive.

const { GrowingClip } = globalThis.hftrainerViewer;
const RETRIES = 5;

export class Jobs {
  // `on` is told what happens: added(motion), grown(motion), changed(job).
  constructor(server, on) {
    Object.assign(this, { server, on, all: [], count: 0 });
  }

  // The jobs that the server remembers, from the oldest to the newest.
  async load() {
    const { jobs } = await this.server.get("/v1/jobs");
    for (const told of jobs.reverse()) this.remember(told);
  }

  async start(request) {
    const { id, status } = await this.server.post("/v1/jobs", request);
    return this.remember({ id, status, request, progress: 0 });
  }

  remember(told) {
    const job = new Job(this, told);
    this.all.push(job);
    for (const [index, motion] of (told.answer?.motions ?? []).entries()) job.finish({ index, ...motion });
    return job;
  }

  async forget(job) {
    await this.server.remove(`/v1/jobs/${job.id}`);
    this.all = this.all.filter((other) => other !== job);
  }
}

class Job {
  constructor(jobs, { id, status, request, progress, created, error }) {
    Object.assign(this, { jobs, id, status, request, progress, error: error ?? null });
    this.created = created ? new Date(created) : new Date();
    this.motions = [];
  }

  get over() {
    return ["done", "failed", "cancelled"].includes(this.status);
  }

  cancel() {
    return this.jobs.server.remove(`/v1/jobs/${this.id}`);
  }

  // Reads the job's events until its end, once; after a lost connection, again from the start.
  follow() {
    return (this.following ??= this.read());
  }

  async read() {
    for (let attempt = 0; ; attempt++) {
      try {
        await this.jobs.server.events(`/v1/jobs/${this.id}/events`, (event, data) => this.take(event, data));
        if (this.over) return;
      } catch (error) {
        if (error.status || attempt === RETRIES) return this.end("failed", { message: error.message });
      }
      if (attempt === RETRIES) return this.end("failed", { message: "The connection to the server was lost." });
      await new Promise((resolve) => setTimeout(resolve, 300 * 2 ** attempt));
    }
  }

  take(event, data) {
    if (event === "start") this.begin(data);
    else if (event === "frames") this.grow(data);
    else if (event === "motion") this.finish(data);
    else if (event === "done") this.end("done");
    else if (event === "error") this.end(data.error === "cancelled" ? "cancelled" : "failed", data);
    else if (event === "queued") Object.assign(this, { status: "queued", position: data.position ?? 0 });
    this.jobs.on.changed(this);
  }

  // The motion of that number within the job, which now has these properties.
  motion(index, known) {
    const old = this.motions[index];
    const motion = (this.motions[index] ??= { job: this, index, number: ++this.jobs.count, clip: null, made: null });
    Object.assign(motion, known);
    if (!old) this.jobs.on.added(motion);
    return motion;
  }

  begin({ motion: index, prompt, seed, fps, known, nearest, segments }) {
    if (!this.over) this.status = "running";
    const motion = this.motion(index, { prompt, seed, known, nearest, segments });
    motion.clip ??= new GrowingClip({ title: prompt, fps }, motion.number - 1);
  }

  // Frames that are there already come again after a reconnection.
  grow({ motion: index, start, positions }) {
    const motion = this.motions[index];
    if (start < motion.clip.frames) return;
    motion.clip.append(positions);
    this.progress = Math.max(this.progress, this.share());
    this.jobs.on.grown(motion);
  }

  // How much is made, where the request says how much there will be.
  share() {
    const asked = this.request.timeline?.reduce((sum, { seconds }) => sum + seconds, 0) ?? this.request.seconds;
    const made = this.motions.map(({ clip }) => (clip ? clip.duration : 0));
    const all = asked * (this.request.prompts?.length ?? 1) * (this.request.count ?? 1);
    return asked ? Math.min(1, made.reduce((sum, seconds) => sum + seconds, 0) / all) : 0;
  }

  finish(made) {
    const { index, prompt, seed, known, nearest } = made;
    const segments = made.segments ?? this.motions[index]?.segments;
    const motion = this.motion(index, { made, prompt, seed, known, nearest, segments });
    if (!motion.clip) return;
    motion.clip.finish();
    this.jobs.on.grown(motion);
  }

  end(status, error = null) {
    if (!this.over || status === "failed") Object.assign(this, { status, error });
    for (const motion of this.motions) {
      if (!motion.clip?.growing) continue;
      motion.clip.finish();
      this.jobs.on.grown(motion);
    }
    this.jobs.on.changed(this);
  }
}
