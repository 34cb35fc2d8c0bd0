// Search of the site when its pages are opened from disk: browsers start no worker there, so the worker's script runs in
// a hidden frame instead, which has the few things that it uses.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = frame.contentWindow;
      const listeners = [];
      inside.addEventListener = (type, listener) => type === "message" && listeners.push(listener);
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inside.importScripts = async (...urls) => { for (const one of urls) await load(one); };
      const load = (source) => new Promise((done, failed) => {
        const script = frame.contentDocument.createElement("script");
        script.onload = done;
        script.onerror = failed;
        script.src = source;
        frame.contentDocument.body.append(script);
      });
      this.ready = load(url);
      this.tell = (data) => listeners.forEach((listener) => listener({ data }));
    }

    postMessage(data) {
      this.ready.then(() => this.tell(data));
    }

    terminate() {}
  };
}
