// Holds the data that the files in data/ hand over, and loads more of them when they are needed.
"use strict";

window.unweave = (() => {
  const received = new Map();
  const underway = new Map();

  /** Called by each data file. */
  function receive(name, payload) {
    received.set(name, payload);
  }

  /** What a data file held; the file must have been loaded. */
  function get(name) {
    if (!received.has(name)) throw new Error(`data/${name}.js was not loaded`);
    return received.get(name);
  }

  /** Promise of what a data file holds. It is loaded as a script, because fetch does not work from file://. */
  function load(name) {
    if (received.has(name)) return Promise.resolve(received.get(name));
    if (!underway.has(name)) underway.set(name, addScript(name).finally(() => underway.delete(name)));
    return underway.get(name);
  }

  function addScript(name) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = `data/${name}.js`;
      script.onload = () => resolve(get(name));
      script.onerror = () => reject(new Error(`data/${name}.js could not be read; is the folder complete?`));
      document.head.append(script);
    });
  }

  return { receive, get, load };
})();
