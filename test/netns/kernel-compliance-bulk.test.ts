import { testBulkCompliance } from './kernel-compliance-bulk.ts'
import { TestNamespace } from './namespace.ts'

testBulkCompliance(
  'linux',
  () => {
    const netns = new TestNamespace()
    return { kernel: netns.kernel, dispose: () => netns.delete() }
  },
  6000,
)
