/**
 * Threads whose program is a module that its owner imports as well, for its address alone: bundled or not, both are one file.
 */
import { Worker, type WorkerOptions } from 'node:worker_threads'

/** From its sources the program runs through a loader that a thread does not inherit. */
export function openWorker(url: URL, options: WorkerOptions): Worker {
  if (!url.pathname.endsWith('.ts')) return new Worker(url, options)
  const [loader, program] = [import.meta.resolve('tsx/esm/api'), url.href].map((each) => JSON.stringify(each))
  const code = `import(${loader}).then(({ register }) => { register(); return import(${program}) })`
  return new Worker(code, { ...options, eval: true })
}
