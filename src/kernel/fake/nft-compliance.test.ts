import { testNftCompliance } from '../../../test/netns/nft-compliance.ts'
import { FakeKernel } from './fake-kernel.ts'

testNftCompliance('fake', () => {
  const kernel = FakeKernel.create()
  return { kernel, dispose: () => kernel.close() }
})
