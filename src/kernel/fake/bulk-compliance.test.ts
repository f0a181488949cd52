import { testBulkCompliance } from '../../../test/netns/kernel-compliance-bulk.ts'
import { FakeKernel } from './fake-kernel.ts'

testBulkCompliance(
  'fake',
  () => {
    const kernel = FakeKernel.create()
    return { kernel, dispose: () => kernel.close() }
  },
  1000,
)
