import { testKernelCompliance } from './kernel-compliance.ts'
import { TestNamespace } from './namespace.ts'

testKernelCompliance('linux', () => {
  const here = new TestNamespace()
  const there = new TestNamespace()
  return {
    kernel: here.kernel,
    other: there.kernel,
    otherPath: there.path,
    dispose() {
      here.delete()
      there.delete()
    },
  }
})
