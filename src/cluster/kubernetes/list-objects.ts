/**
 * Every object of a collection once, page by page, for programs that do not follow it.
 *
 * Sources: Kubernetes API Concepts ("Retrieving large results sets in chunks").
 */
import type { HttpClient } from '../http-client.ts'
import type { RawObject } from './informer.ts'

const PAGE_SIZE = 500

/** `path` is the collection's, without a query. Rejects as the client does. */
export async function listObjects(client: HttpClient, path: string, signal: AbortSignal): Promise<RawObject[]> {
  const objects: RawObject[] = []
  let next = ''
  do {
    const query = new URLSearchParams({ limit: `${PAGE_SIZE}`, ...(next ? { continue: next } : {}) })
    const page = (await client.request({ method: 'GET', path: `${path}?${query}`, signal })) as {
      readonly items?: readonly RawObject[] | null
      readonly metadata?: { readonly continue?: string }
    }
    objects.push(...(page.items ?? []))
    next = page.metadata?.continue ?? ''
  } while (next)
  return objects
}
