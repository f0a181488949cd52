import { testKernelCompliance } from '../../../test/netns/kernel-compliance.ts'
import { FakeKernel } from './fake-kernel.ts'

testKernelCompliance('fake', () => {
  const kernel = FakeKernel.create()
  const otherPath = '/run/netns/other'
  const other = kernel.createNamespace(otherPath)
  return { kernel, other, otherPath, dispose: () => kernel.close() }
})
