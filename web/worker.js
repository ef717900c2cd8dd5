/** What runs beside the page, on one model. A job ends when the next begins. */
function work() {
  let model, latest;
  const tasks = {
    async open(buffer) {
      const job = latest, opened = await readModel(buffer);
      if (job === latest) model = opened;
      return [{ ...opened, arrays: null, outputs: null }];
    },
    complete: (...values) => completePicture(model, ...values),
    decode: (buffer) => decode(model, new Uint8Array(buffer)),
    score: (...values) => score(model, ...values),
  };
  onmessage = async ({ data: [job, task, ...values] }) => {
    let answer, shown = performance.now();
    latest = job;
    try {
      for (answer of await tasks[task](...values)) {
        if (performance.now() < shown + 40) continue;
        postMessage({ ...answer, job });
        await new Promise((resolve) => setTimeout(resolve)); // Lets the next job come in.
        if (job !== latest) return;
        shown = performance.now();
      }
      postMessage({ ...answer, job, done: true });
    } catch ({ message }) {
      postMessage({ job, error: message });
    }
  };
}

/** The text of all functions so far: a Worker of a page from file: may load no script. */
const source = Object.values(Object.getOwnPropertyDescriptors(globalThis))
  .filter(({ value, configurable }) => typeof value === "function" && !configurable)
  .map(({ value }) => value).join("\n"); // The functions that a script declares.
