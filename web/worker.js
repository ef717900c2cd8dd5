/** What runs beside the page, on one model. A job ends when the next one begins; its answers have its number. */
function work() {
  let model, latest;
  const tasks = {
    open: async (buffer, job = latest) => {
      const opened = await readModel(buffer);
      if (job === latest) model = opened;
      return [{ ...opened, array: null }];
    },
    complete: (...values) => complete(model, ...values),
    decode: (buffer) => decode(model, new Uint8Array(buffer)),
    score: (...values) => [{ nats: logProb(model, ...values).map((log) => -log) }],
  };
  onmessage = async ({ data: [job, task, ...values] }) => {
    let last, shown = performance.now();
    latest = job;
    try {
      for (last of await tasks[task](...values)) {
        if (performance.now() < shown + 40) continue;
        postMessage({ ...last, job });
        await new Promise((resolve) => setTimeout(resolve)); // Lets the next job come in.
        if (job !== latest) return;
        shown = performance.now();
      }
      postMessage({ ...last, job, done: true });
    } catch ({ message }) { postMessage({ job, error: message }); }
  };
}
