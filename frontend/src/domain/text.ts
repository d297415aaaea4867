/** Words for what the service is and does, which several pages show. */
export const text = {
  unknown: "–",
  modelStatus: {
    unloaded: "Unloaded",
    queued: "Queued",
    loading: "Loading",
    ready: "Ready",
    sleeping: "Sleeping",
    stopping: "Stopping",
    failed: "Failed",
  },
  engineStatus: {
    running: "Running",
    idle: "Stopped",
    error: "Error",
  },
  model: {
    load: "Load",
    loadAnyway: "Load anyway",
    unload: "Unload",
    cancel: "Cancel",
    loading: (name: string) => `Loading ${name}…`,
  },
  stage: {
    starting: "Starting",
    text_model: "Reading weights",
    tensors: "Reading weights",
    warmup: "Warming up",
  } as Record<string, string>,
  advice: {
    memory: "There is not enough memory. Unload another model, or choose a smaller quantization or context.",
    architecture: "This llama.cpp does not know the architecture. Update llama.cpp, or use another model.",
    file: "The file cannot be read. Check that it still exists and is complete, download it again if not, then scan.",
    timeout: "It took longer than the limit. Load it again; a second load is often faster, as the file is then cached.",
    other: "The log below usually names the cause. Fix it, then load again.",
  },
  tokensPerSecond: (rate: string) => `${rate} tokens/s`,
} as const;
