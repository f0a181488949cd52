import { TestNamespace } from './namespace.ts'
import { testNftCompliance } from './nft-compliance.ts'

testNftCompliance('linux', () => {
  const space = new TestNamespace()
  return { kernel: space.kernel, dispose: () => space.delete() }
})
