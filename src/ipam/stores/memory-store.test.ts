import { testIpamStore } from './ipam-store-suite.ts'
import { MemoryStore } from './memory-store.ts'

testIpamStore(
  'memory',
  async () => {
    const store = new MemoryStore()
    return { open: async () => store, close: () => store.close() }
  },
  { canBeAway: false },
)
